"""`evaluate`: the figures of images from anywhere, with all that they depend on.

One process does it, or several that share out the extraction of features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness.config.serialisation import from_yaml_file, sampling_facts
from harness.evaluation.class_labels import matched_labels
from harness.evaluation.extractors import load_extractor
from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.features import Extraction, Features, extract_features
from harness.evaluation.image_inputs import HashedRows, ImageInput, open_images
from harness.evaluation.metrics.per_class import PerClassDistance
from harness.evaluation.metrics.uncertainty import ENOUGH_SAMPLES, Uncertainty, frechet_uncertainty
from harness.evaluation.quality import (
    KERNEL_SUBSETS,
    MOST_NEIGHBOURHOODS,
    Quality,
    measure_quality,
    quality_identity,
)
from harness.evaluation.reference import Reference, ReferenceStatistics
from harness.evaluation.reference_file import (
    open_reference_images,
    read_reference,
    reference_extractor,
)
from harness.evaluation.standalone.outputs import (
    check_outputs,
    evaluation_report,
    evaluation_warnings,
    measure_classes,
    write_outputs,
)
from harness.evaluation.standalone.spec import DEFAULT_SPLITS, EvaluateSpec
from harness.machine.environment import installed_versions
from harness.machine.place import choose_device
from harness.processes.group import ALONE, ProcessGroup
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from harness.processes.ranks import check_processes, group_of_environment, run_local_ranks
from harness.processes.signals import StopRequest
from harness.vocabulary import names
from harness.vocabulary.metrics import FRECHET, Measurement
from models.errors import UserError

_PACKAGES = ("numpy", "pillow", "scipy", "timm", "torch", "torch-fidelity")

_ARRAYS = (".npz", ".npy")

_RANK = "harness.evaluation.standalone.evaluate:evaluate_as_rank"

_UNITS = {"bootstrap": "resamples", "extrapolation": "resamples"}
"""Of stages that count something else than images."""

Watch = Callable[[str], AbstractContextManager[ProgressListener]]
"""Begins to show the progress of one stage, given the unit that it is counted in."""


@dataclass(frozen=True)
class Evaluation:
    """Figures, and what should be said of them."""

    quality: Quality
    display: str
    """The extractor's name in tables."""
    uncertainty: Uncertainty | None
    """None where there are enough samples, no distance, or no resamples were asked for."""
    report: dict[str, Any]
    """All of it, as JSON takes it."""
    warnings: tuple[str, ...]
    per_class: PerClassDistance | None = None
    """None where it was not asked for."""
    unwritten: dict[str, str] = field(default_factory=dict)
    """Files that could not be written, and why."""


def run_evaluation(spec: EvaluateSpec, processes: int, watch: Watch) -> Evaluation | None:
    """Measure with several processes on this machine, or as the process that torchrun started.

    Returns:
        None in a process that another one leads.

    Raises:
        UserError: images, reference or weights cannot be used, see `evaluate_images`.
        RankFailedError: a process crashed or was killed.
    """
    check_processes(processes)
    with _Views(watch) as views:
        if processes == 1:
            with group_of_environment() as group:
                return evaluate_images(spec, views.show, group)
        payload = {"spec": TypeAdapter(EvaluateSpec).dump_python(spec, mode="json")}
        found = run_local_ranks(_RANK, payload, processes, views.show)
    return TypeAdapter(Evaluation).validate_python(found)


def evaluate_as_rank(
    payload: Mapping[str, Any], report: ProgressListener, stop: StopRequest
) -> Any:
    """What each of several processes does; the evaluation as JSON takes it."""
    spec = TypeAdapter(EvaluateSpec).validate_python(payload["spec"])
    with group_of_environment() as group:
        evaluation = evaluate_images(spec, stop.between_batches(report), group)
    return TypeAdapter(Evaluation | None).dump_python(evaluation, mode="json")


class _Views(ExitStack):
    """One view of progress at a time, another one where another unit is counted, or where a stage
    begins anew: samples after real images."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch
        self._unit: str | None = None
        self._last = Progress("", 0, 0)
        self._view: ProgressListener = ignore_progress

    def show(self, progress: Progress) -> None:
        unit = _UNITS.get(progress.stage, "images")
        again = progress.stage == self._last.stage and progress.begins_after(self._last)
        self._last = progress
        if unit != self._unit or again:
            self.close()
            self._view = self.enter_context(self._watch(unit))
            self._unit = unit
        self._view(progress)


def evaluate_images(
    spec: EvaluateSpec,
    on_progress: ProgressListener = ignore_progress,
    group: ProcessGroup = ALONE,
) -> Evaluation | None:
    """Measure, and write what is asked for; processes of a group share out the extraction.

    Returns:
        None in a process that another one leads.

    Raises:
        UserError: images or reference are missing, damaged or do not fit, weights give features
            that are not finite, or what is asked for cannot be written.
    """
    samples, trial = _open_samples(spec.samples, spec.runs_dir)
    if group.leads:
        check_outputs(spec)
    if spec.inception_splits > max(len(samples.images), DEFAULT_SPLITS):
        raise UserError(
            f"--splits is {spec.inception_splits:,}, but expected at most as many as there are "
            f"samples, {len(samples.images):,}"
        )
    # What is wrong with the files is told before what the extractor lacks.
    real = open_reference_images(spec.reference)
    labels = None
    if spec.per_class is not None:
        labels = matched_labels(Path(samples.source), spec.reference)
    name = spec.extractor or reference_extractor(spec.reference)
    extractor = load_extractor(name, spec.extractor_weights, spec.extractor_size)
    measurements = spec.measurements or _all_measurements(extractor)
    device = choose_device(spec.device)
    extraction = Extraction(extractor, spec.batch_size, device, group, on_progress)
    reference: ReferenceStatistics | None
    if real is None:
        singles = {Measurement.KERNEL, Measurement.NEIGHBOURS} & set(measurements)
        reference, provenance = read_reference(
            spec.reference, extraction, single_images=bool(singles) or labels is not None
        )
    else:
        reference, provenance = _statistics_of(real, extraction)
    features, sha256 = _hashed_features(samples, extraction)
    if not group.leads or reference is None:
        return None
    drawn = {"samples_source": samples.source, "samples_sha256": sha256, **trial}
    identity = _identity(samples, drawn, extractor, reference, provenance, spec)
    quality = measure_quality(
        features,
        reference,
        identity,
        inception_splits=spec.inception_splits,
        measurements=measurements,
        on_progress=on_progress,
    )
    classes = None
    if labels is not None and spec.per_class is not None:
        classes = measure_classes(
            features.features, reference.features, labels, spec.per_class, spec.reference
        )
    uncertainty = None
    if FRECHET.key in quality.figures and len(features) < ENOUGH_SAMPLES and spec.resamples:
        uncertainty = frechet_uncertainty(
            features.features,
            reference.gaussian,
            reference.features,
            resamples=spec.resamples,
            on_progress=on_progress,
        )
    notes = (*samples.notes, *(() if real is None else real.notes))
    warnings = (*notes, *evaluation_warnings(quality, provenance, samples.classes))
    report = evaluation_report(quality, uncertainty, warnings, classes)
    unwritten = write_outputs(spec, samples, report, classes)
    return Evaluation(quality, extractor.display, uncertainty, report, warnings, classes, unwritten)


def _all_measurements(extractor: FeatureExtractor) -> tuple[Measurement, ...]:
    missing = {
        Measurement.SPATIAL: not extractor.spatial_size,
        Measurement.SCORE: not extractor.classes,
    }
    return tuple(one for one in Measurement if not missing.get(one))


def _hashed_features(images: ImageInput, extraction: Extraction) -> tuple[Features, str]:
    """Features, on the leading process, and the hash of the images."""
    rows = HashedRows(images.images)
    found = extract_features(rows, extraction)
    return found, rows.sha256(extraction.group)


def _statistics_of(
    real: ImageInput, extraction: Extraction
) -> tuple[ReferenceStatistics | None, dict[str, Any]]:
    """Of real images, on the leading process, and where they come from."""
    features, fingerprint = _hashed_features(real, extraction)
    provenance = {
        "source": real.source,
        "fingerprint": fingerprint,
        "images": len(real.images),
        "resolution": real.resolution,
        "classes": real.classes,
    }
    extractor = extraction.extractor
    found = Reference(features, fingerprint, extractor.name, extractor.weights_sha256)
    return found.statistics() if extraction.group.leads else None, provenance


def _open_samples(text: str, runs_dir: Path) -> tuple[ImageInput, dict[str, Any]]:
    """The images, and what a trial of ours tells of them."""
    path = Path(text)
    is_trial = (path / names.ARTIFACT_CONFIG).is_file()
    if (path.exists() and not is_trial) or path.suffix in _ARRAYS:
        return open_images(path), {}
    # They bring the whole of training along: seconds that images from elsewhere need not wait for.
    from harness.tracking.publisher import find_trial

    try:
        folder = find_trial(text, runs_dir)
    except UserError as error:
        raise UserError(
            f"--samples {text} is no folder of images, no .npz and no .npy; and {error}"
        ) from error
    if not (folder / names.SAMPLES).is_file():
        raise UserError(
            f"{folder} holds no {names.SAMPLES}: its trial has not come that far; repeat the "
            "ablation's command, which goes on where it stopped"
        )
    config = from_yaml_file(folder / names.ARTIFACT_CONFIG)
    return open_images(folder / names.SAMPLES), {**sampling_facts(config), "seed": config.seed}


def _identity(
    samples: ImageInput,
    drawn: dict[str, Any],
    extractor: FeatureExtractor,
    reference: ReferenceStatistics,
    provenance: dict[str, Any],
    spec: EvaluateSpec,
) -> dict[str, Any]:
    """All that the figures depend on, with where the samples come from in `drawn`."""
    count, resolution = len(samples.images), samples.images.shape[1:3]
    splits = spec.inception_splits
    singles = None if reference.features is None else len(reference.features)
    return {
        **quality_identity(count, resolution, reference, extractor, splits),
        **drawn,
        "reference": {**provenance, "file": str(spec.reference)},
        "reference_single_images": singles,
        "kernel_subsets": KERNEL_SUBSETS,
        "neighbourhoods": None if singles is None else min(singles, MOST_NEIGHBOURHOODS),
        "versions": installed_versions(_PACKAGES),
    }
