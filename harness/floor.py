"""What held-out real images score against the reference: the best that samples can hope for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.config.schema import TrialConfig
from harness.data.datasets import load_data_set
from harness.data.images import Pictures
from harness.evaluation.extractors import load_extractor
from harness.evaluation.quality import quality_metrics, real_against_real
from harness.evaluation.reference import Reference
from harness.machine.files import write_text
from harness.processes.progress import ProgressListener
from harness.training.hardware import choose_device
from harness.trial.reference import extractor_files, measured_identity, real_features
from harness.trial.spec import TrialOrder, floor_file


def measure_floor(order: TrialOrder, report: ProgressListener) -> dict[str, Any]:
    """Measure it for all trials that share data and evaluation with this one.

    Extracts the reference's features, which these trials then share as well.

    Returns:
        `metrics` and `identity`, as `AblationRun.trials` takes them.
    """
    config = TrialConfig.model_validate(order.config)
    references = Path(order.references)
    data = load_data_set(config.data)
    extractor = load_extractor(*extractor_files(config))
    device = choose_device(config.train).device

    def features(pictures: Pictures, count: int | None) -> Reference:
        return real_features(
            pictures, count, config, extractor, references=references, device=device, report=report
        )

    floor = real_against_real(
        features(data.held_out.pictures, config.evaluate.samples),
        data.held_out.pictures.picture_shape[1:],
        features(data.train.pictures, config.evaluate.reference_images),
        extractor,
        samples=config.evaluate.samples,
        inception_splits=config.evaluate.inception_splits,
    )
    measured = {"metrics": quality_metrics(floor), "identity": measured_identity(floor)}
    write_text(floor_file(config, references), json.dumps(measured, indent=2) + "\n")
    return measured
