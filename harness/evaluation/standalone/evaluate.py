"""`evaluate`: the figures of images from anywhere, with all that they depend on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config.serialisation import from_yaml_file
from harness.evaluate_classes import NamedClasses, measure_classes
from harness.evaluate_report import evaluation_report, evaluation_warnings
from harness.evaluation.class_labels import matched_labels
from harness.evaluation.extractors import load_extractor
from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.features import Features, extract_features, finite_features
from harness.evaluation.image_inputs import HashedRows, ImageInput, open_images
from harness.evaluation.metrics.uncertainty import ENOUGH_SAMPLES, Uncertainty, frechet_uncertainty
from harness.evaluation.quality import (
    DENSITY_NEIGHBOURS,
    KERNEL_SUBSETS,
    MOST_NEIGHBOURHOODS,
    NEIGHBOURS,
    SHUFFLE_SEED,
    Metric,
    Quality,
    measure_quality,
)
from harness.evaluation.reference_file import (
    open_reference_images,
    read_reference,
    reference_extractor,
    reference_of_features,
)
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.evaluation.standalone.outputs import check_outputs, write_outputs
from harness.evaluation.standalone.spec import EvaluateOrder
from harness.machine.environment import installed_versions, process_device
from harness.processes.group import ALONE, ProcessGroup
from harness.processes.progress import ProgressListener, ignore_progress
from harness.vocabulary import names
from harness.vocabulary.names import SAMPLES
from models.errors import UserError

_PACKAGES = ("numpy", "pillow", "scipy", "timm", "torch", "torch-fidelity")
_ARRAYS = (".npz", ".npy")

Watch = Callable[[str], AbstractContextManager[ProgressListener]]
"""Begins to show the progress of one stage, given the unit that it is counted in."""


def silent_watch(listener: ProgressListener) -> Watch:
    """Tells one listener of all stages."""
    return lambda _unit: nullcontext(listener)


@dataclass(frozen=True)
class Evaluation:
    """Figures, and what should be said of them."""

    quality: Quality
    display: str
    """The extractor's name in tables."""
    uncertainty: Uncertainty | None
    """None where there are enough samples, or no distance."""
    report: dict[str, Any]
    """All of it, as JSON takes it."""
    warnings: tuple[str, ...]
    per_class: NamedClasses | None = None
    """None where it was not asked for."""
    unwritten: dict[str, str] = field(default_factory=dict)
    """Files that could not be written, and why."""


def evaluate_images(
    order: EvaluateOrder, watch: Watch, group: ProcessGroup = ALONE
) -> Evaluation | None:
    """Measure, and write what is asked for.

    Args:
        order: what to measure.
        watch: shows progress, on the leading process.
        group: of processes that share out the extraction; the leading one does the rest.

    Returns:
        None in a process that another one leads.

    Raises:
        UserError: images or reference are missing, damaged or do not fit, weights give features
            that are not finite, or what is asked for cannot be written.
    """
    if not group.leads:
        watch = silent_watch(ignore_progress)
    samples, trial = _open_samples(order.samples, order.runs_dir)
    if group.leads:
        check_outputs(order)
    # What is wrong with the files is told before what the extractor lacks.
    real = open_reference_images(order.reference)
    labels = None
    if order.per_class is not None:
        labels = matched_labels(Path(samples.source), order.reference)
    name = order.extractor or reference_extractor(order.reference)
    extractor = load_extractor(name, order.extractor_weights)
    device = process_device(order.device)
    metrics = _metrics(order, extractor)

    def features_of(images: ImageInput) -> tuple[Features, str]:
        """And the hash of the images."""
        rows = HashedRows(images.images)
        with watch("images") as view, finite_features(order.extractor_weights):
            found = extract_features(
                rows,
                extractor,
                batch_size=order.batch_size,
                device=device,
                group=group,
                on_progress=view,
            )
        return found, rows.sha256(group)

    warnings = [*samples.notes]
    reference: ReferenceStatistics | None
    if real is None:
        with watch("images") as view, finite_features(order.extractor_weights):
            reference, provenance = read_reference(
                order.reference,
                extractor,
                single_images=labels is not None
                or bool({Metric.KERNEL, Metric.NEIGHBOURS} & set(metrics)),
                batch_size=order.batch_size,
                device=device,
                group=group,
                on_progress=view,
            )
    else:
        warnings += real.notes
        found, fingerprint = features_of(real)
        reference = reference_of_features(found, extractor, fingerprint) if group.leads else None
        # Their logits serve nothing: 0.2 GB for 50,000 images.
        del found
        provenance = {
            "source": real.source,
            "fingerprint": fingerprint,
            "images": len(real.images),
            "resolution": _resolution(real),
        }
    features, sha256 = features_of(samples)
    if not group.leads or reference is None:
        return None
    with watch("images") as view:
        quality = measure_quality(
            features,
            reference,
            _identity(samples, sha256, extractor, reference, provenance, trial, order),
            inception_splits=order.inception_splits,
            metrics=metrics,
            on_progress=view,
        )
    classes = None
    if labels is not None and order.per_class is not None:
        classes = measure_classes(
            features.features, reference.features, labels, order.per_class, order.reference
        )
    uncertainty = _uncertainty(features, reference, quality, order.resamples, watch)
    warnings += evaluation_warnings(quality, provenance)
    report = evaluation_report(quality, uncertainty, warnings, classes)
    unwritten = write_outputs(order, samples.images, report, classes)
    return Evaluation(
        quality, extractor.display, uncertainty, report, tuple(warnings), classes, unwritten
    )


def _metrics(order: EvaluateOrder, extractor: FeatureExtractor) -> tuple[Metric, ...]:
    if order.metrics is not None:
        return order.metrics
    missing = {
        Metric.SPATIAL: not extractor.spatial_size,
        Metric.SCORE: not extractor.classes,
    }
    return tuple(metric for metric in Metric if not missing.get(metric))


def _open_samples(text: str, runs_dir: Path) -> tuple[ImageInput, dict[str, Any]]:
    """The images, and what a trial of ours tells of them."""
    path = Path(text)
    is_trial = (path / names.ARTIFACT_CONFIG).is_file()
    if (path.exists() and not is_trial) or path.suffix in _ARRAYS:
        return open_images(path), {}
    # They bring the whole of training along: seconds that images from elsewhere need not wait for.
    from harness.config.facts import sampling_facts
    from harness.tracking.find import find_trial

    try:
        folder = find_trial(text, runs_dir)
    except UserError as error:
        raise UserError(
            f"--samples {text} is no folder of images, no .npz and no .npy; and {error}"
        ) from error
    if not (folder / SAMPLES).is_file():
        raise UserError(
            f"{folder} holds no {SAMPLES}: its trial has not come that far; repeat the ablation's "
            "command, which goes on where it stopped"
        )
    config = from_yaml_file(folder / names.ARTIFACT_CONFIG)
    return open_images(folder / SAMPLES), {**sampling_facts(config), "seed": config.seed}


def _identity(
    samples: ImageInput,
    sha256: str,
    extractor: FeatureExtractor,
    reference: ReferenceStatistics,
    provenance: dict[str, Any],
    trial: dict[str, Any],
    order: EvaluateOrder,
) -> dict[str, Any]:
    """All that the figures depend on."""
    singles = None if reference.features is None else len(reference.features)
    return {
        "extractor": extractor.name,
        "extractor_weights_sha256": extractor.weights_sha256,
        "resize": extractor.resize,
        "samples": len(samples.images),
        "resolution": _resolution(samples),
        "samples_source": samples.source,
        "samples_sha256": sha256,
        **trial,
        "reference": {**provenance, "file": str(order.reference)},
        "reference_fingerprint": reference.fingerprint,
        "reference_images": reference.images,
        "reference_single_images": singles,
        "inception_splits": order.inception_splits,
        "inception_shuffle_seed": SHUFFLE_SEED,
        "kernel_subsets": KERNEL_SUBSETS,
        "neighbours": NEIGHBOURS,
        "density_neighbours": DENSITY_NEIGHBOURS,
        "neighbourhoods": None if singles is None else min(singles, MOST_NEIGHBOURHOODS),
        "versions": installed_versions(_PACKAGES),
    }


def _resolution(images: ImageInput) -> str:
    return "x".join(str(side) for side in images.images.shape[1:3])


def _uncertainty(
    features: Features,
    reference: ReferenceStatistics,
    quality: Quality,
    resamples: int,
    watch: Watch,
) -> Uncertainty | None:
    if quality.frechet_distance is None or len(features) >= ENOUGH_SAMPLES:
        return None
    with watch("resamples") as view:
        return frechet_uncertainty(
            features.features, reference.gaussian, resamples=resamples, on_progress=view
        )
