"""The real images that a trial's samples are compared with, and how well other ones do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from harness.config.schema import TrialConfig
from harness.data.datasets import load_data_set
from harness.data.images import Pictures
from harness.evaluation.extractors import load_extractor
from harness.evaluation.features import Extraction
from harness.evaluation.quality import Quality, real_against_real
from harness.evaluation.reference import PictureRows, RealImages, Reference, load_reference
from harness.machine.files import write_json
from harness.machine.place import choose_device
from harness.processes.group import ALONE, ProcessGroup
from harness.processes.progress import ProgressListener
from harness.trial.spec import TrialSpec, extractor_files, floor_file
from harness.vocabulary.names import short_hash
from models.randomness import generator


def load_extraction(
    config: TrialConfig, device: torch.device, report: ProgressListener, group: ProcessGroup = ALONE
) -> Extraction:
    """With the extractor that a configuration names."""
    extractor = load_extractor(*extractor_files(config))
    return Extraction(extractor, config.evaluate.batch_size, device, group, report)


def real_features(
    pictures: Pictures, count: int | None, extraction: Extraction, references: Path
) -> Reference:
    """Features of real images, from the cache in `references` that all trials share where they are
    in it: of a fixed random choice of `count` pictures, or of all for None."""
    if count is not None and count < len(pictures.labels):
        order = torch.randperm(len(pictures.labels), generator=generator("reference-images"))
        pictures = pictures.subset(order[:count].sort().values)
    real = RealImages(PictureRows(pictures), pictures.fingerprint())
    return load_reference(real, extraction, references)


def measured_identity(quality: Quality) -> dict[str, Any]:
    """What the figures depend on, the reference in one entry."""
    identity: dict[str, Any] = dict(quality.identity)
    fingerprint, count = identity.pop("reference_fingerprint"), identity.pop("reference_images")
    return {**identity, "reference": f"{short_hash(fingerprint)} ({count} images)"}


def measure_floor(spec: TrialSpec, report: ProgressListener) -> dict[str, Any]:
    """What held-out real images score against the reference: the best that samples can hope for.

    Measured for all trials that share data and evaluation with this one; they share the features of
    the reference as well.

    Returns:
        `metrics` and `identity`, as a trial's result has them.
    """
    config = TrialConfig.model_validate(spec.config)
    references = Path(spec.references)
    data = load_data_set(config.data)
    extraction = load_extraction(config, choose_device(config.train.device, "train.device"), report)
    held_out, evaluate = data.held_out.pictures, config.evaluate
    floor = real_against_real(
        real_features(held_out, evaluate.samples, extraction, references),
        held_out.shape[1:],
        real_features(data.train.pictures, evaluate.reference_images, extraction, references),
        extraction.extractor,
        samples=evaluate.samples,
        inception_splits=evaluate.inception_splits,
    )
    measured = {"metrics": floor.recorded(), "identity": measured_identity(floor)}
    write_json(floor_file(config, references), measured, indent=2)
    return measured
