"""The quality of a set of samples, and what that figure depends on."""

from __future__ import annotations

from typing import Any

import torch

from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.features import Features, extract_features
from harness.evaluation.quality import Quality, measure_quality
from harness.evaluation.reference import Reference, drawn_without_order
from harness.machine.npz import ImageRows
from harness.processes.group import ALONE, ProcessGroup
from harness.processes.progress import ProgressListener, ignore_progress


def evaluate_samples(
    images: ImageRows,
    reference: Reference,
    extractor: FeatureExtractor,
    *,
    inception_splits: int,
    batch_size: int,
    device: torch.device | str,
    group: ProcessGroup = ALONE,
    on_progress: ProgressListener = ignore_progress,
) -> Quality | None:
    """Measure samples against real images.

    Args:
        images: (N, H, W, C) uint8 with 1 or 3 channels.
        reference: features of real images, from the same extractor.
        extractor: in eval mode.
        inception_splits: at most N.
        batch_size: of the extraction.
        device: of the extraction.
        group: of processes that call this together and share out the extraction. The leading one
            does the rest, and needs the reference's features.
        on_progress: told after each batch of the extraction, on the leading process.

    Returns:
        None on a process that another one leads.

    Raises:
        ValueError: too few images, or the reference is from another extractor.
    """
    if len(images) < max(2, inception_splits):
        raise ValueError(f"{len(images)} images are too few for {inception_splits} splits")
    _check_same_extractor(reference, extractor)
    features = extract_features(
        images,
        extractor,
        batch_size=batch_size,
        device=device,
        group=group,
        on_progress=on_progress,
    )
    if not group.leads:
        return None
    return _quality(
        features, images.shape[1:3], reference, extractor, inception_splits, on_progress
    )


def real_against_real(
    held_out: Reference,
    resolution: tuple[int, int],
    reference: Reference,
    extractor: FeatureExtractor,
    *,
    samples: int,
    inception_splits: int,
) -> Quality:
    """The floor: what held-out real images score, the best that samples can hope for.

    The distance falls with the number of images, so the held-out ones are cut to the number of
    samples; where there are fewer, the floor is somewhat too high. `identity["samples"]` is the
    number measured.

    Args:
        held_out: real images that are not in the reference.
        resolution: rows and columns of the held-out images.
        reference: what samples are compared with.
        extractor: that both come from.
        samples: how many samples the figure is to be compared with.
        inception_splits: at most the number of images measured.

    Raises:
        ValueError: too few images, or the references are from another extractor.
    """
    _check_same_extractor(held_out, extractor)
    features = drawn_without_order(held_out, samples)
    return _quality(features, resolution, reference, extractor, inception_splits)


def _quality(
    features: Features,
    resolution: tuple[int, ...],
    reference: Reference,
    extractor: FeatureExtractor,
    splits: int,
    on_progress: ProgressListener = ignore_progress,
) -> Quality:
    _check_same_extractor(reference, extractor)
    identity = quality_identity(len(features), resolution, reference, extractor, splits)
    return measure_quality(
        features,
        reference.statistics(),
        identity,
        inception_splits=splits,
        on_progress=on_progress,
    )


def quality_identity(
    samples: int,
    resolution: tuple[int, ...],
    reference: Reference,
    extractor: FeatureExtractor,
    splits: int,
) -> dict[str, Any]:
    """All that the figures of `samples` images of `resolution` (rows, columns) depend on."""
    return {
        "extractor": extractor.name,
        "extractor_weights_sha256": extractor.weights_sha256,
        "resize": extractor.resize,
        "samples": samples,
        "resolution": "x".join(str(size) for size in resolution),
        "reference_fingerprint": reference.fingerprint,
        "reference_images": len(reference.features),
        "inception_splits": splits,
    }


def _check_same_extractor(reference: Reference, extractor: FeatureExtractor) -> None:
    theirs = (reference.extractor, reference.weights_sha256)
    ours = (extractor.name, extractor.weights_sha256)
    if theirs != ours:
        raise ValueError(f"the reference is from {theirs}, the samples are measured with {ours}")
