"""What a trial's figures come from and depend on: its identity and its tags.

What a trial cost, under the names that runs bear.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.config.facts import sampling_facts
from harness.config.schema import TrialConfig
from harness.data.images import DataSet
from harness.evaluation.cost import model_cost
from harness.evaluation.quality import Quality
from harness.tracking.provenance import provenance_tags
from harness.training.train import TrainingSummary
from harness.training.validation import Best
from harness.trial.reference import measured_identity
from harness.trial.samples import validation_identity
from harness.trial.spec import TrialSpec
from harness.vocabulary import names
from models.backbone import Backbone, Block


def figures_identity(quality: Quality, config: TrialConfig) -> dict[str, Any]:
    """All that the quality figures depend on besides the model."""
    return {**measured_identity(quality), **sampling_facts(config)}


def spec_tags(
    spec: TrialSpec, config: TrialConfig, gpu: str | None, processes: int
) -> dict[str, str]:
    """Of a run from its beginning on: where it comes from, and what it is a part of.

    Args:
        spec: of the trial.
        config: its configuration, validated.
        gpu: its name; None on a CPU.
        processes: that train together.
    """
    return {
        **provenance_tags(Path(spec.root), gpu=gpu, threads=spec.threads),
        names.TAG_KIND: names.KIND_TRIAL,
        names.TAG_SCALE: spec.scale,
        names.TAG_VARIANT: spec.variant,
        names.TAG_SEED: str(config.seed),
        names.TAG_CONFIG_HASH: spec.hash,
        names.TAG_SIDE_BY_SIDE: str(spec.side_by_side),
        names.TAG_PROCESSES: str(processes),
        **spec.tags,
    }


def validation_tags(
    identity: Mapping[str, Any], config: TrialConfig, best: Best | None
) -> dict[str, str]:
    """What validation samples were measured with, and which weights were best.

    Args:
        identity: of the trial's figures.
        config: of the trial.
        best: None where no best weights were kept.
    """
    tags = {}
    if config.train.validation_samples:
        measured = validation_identity(identity, config)
        tags[names.TAG_VALIDATION_IDENTITY] = json.dumps(measured, sort_keys=True)
    if best is not None:
        tags |= {
            names.TAG_BEST_BY: best.metric,
            names.TAG_BEST_STEP: str(best.step),
            names.TAG_BEST_VALUE: repr(best.value),
        }
    return tags


def cost_metrics(
    network: Backbone, data: DataSet, trained: TrainingSummary, sampling_speed: float | None
) -> dict[str, float]:
    """Size, operations, the attention's heads and speeds.

    Args:
        network: as it was trained.
        data: that it was trained on.
        trained: what training measured.
        sampling_speed: in images a second; None where it was not measured.
    """
    first = network.blocks[0]
    assert isinstance(first, Block)
    attention = first.attention
    cost = model_cost(network, data.train.shape, len(data.train.class_names))
    figures = {
        names.VALIDATION_LOSS: trained.validation_loss,
        names.TRAIN_IMAGES_PER_SECOND: trained.images_per_second,
        names.SAMPLING_IMAGES_PER_SECOND: sampling_speed,
        names.PARAMETERS: cost.parameters,
        names.MACS: cost.macs,
        names.FLOPS: cost.flops,
        names.HEADS: attention.heads,
        names.HEAD_WIDTH: attention.width // attention.heads,
        names.QKV_BIAS: attention.qkv.bias is not None,
    }
    return {name: float(value) for name, value in figures.items() if value is not None}
