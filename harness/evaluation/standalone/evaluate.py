"""`evaluate`: the figures of images from anywhere, with all that they depend on.

One process does it, or several that share out the extraction of features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from harness.config.serialisation import from_yaml_file
from harness.evaluation.class_labels import matched_labels
from harness.evaluation.extractors import load_extractor
from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.features import Features, extract_features, finite_features
from harness.evaluation.image_inputs import HashedRows, ImageInput, open_images
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
    NamedClasses,
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
    """None where there are enough samples, no distance, or no resamples were asked for."""
    report: dict[str, Any]
    """All of it, as JSON takes it."""
    warnings: tuple[str, ...]
    per_class: NamedClasses | None = None
    """None where it was not asked for."""
    unwritten: dict[str, str] = field(default_factory=dict)
    """Files that could not be written, and why."""


def evaluate_images(
    spec: EvaluateSpec, watch: Watch, group: ProcessGroup = ALONE
) -> Evaluation | None:
    """Measure, and write what is asked for.

    Args:
        spec: what to measure.
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
    measurements = _measurements(spec, extractor)
    looking = _Looking(spec, extractor, watch, group)
    warnings = [*samples.notes]
    reference: ReferenceStatistics | None
    if real is None:
        singles = {Measurement.KERNEL, Measurement.NEIGHBOURS} & set(measurements)
        reference, provenance = looking.stored_reference(bool(singles) or labels is not None)
    else:
        warnings += real.notes
        reference, provenance = looking.reference_of(real)
    features, sha256 = looking.features_of(samples)
    if not group.leads or reference is None:
        return None
    with watch("images") as view:
        quality = measure_quality(
            features,
            reference,
            _identity(samples, sha256, extractor, reference, provenance, trial, spec),
            inception_splits=spec.inception_splits,
            measurements=measurements,
            on_progress=view,
        )
    classes = None
    if labels is not None and spec.per_class is not None:
        classes = measure_classes(
            features.features, reference.features, labels, spec.per_class, spec.reference
        )
    warnings += _other_classes(samples.classes, provenance.get("classes"))
    uncertainty = _uncertainty(features, reference, quality, spec.resamples, watch)
    warnings += evaluation_warnings(quality, provenance)
    report = evaluation_report(quality, uncertainty, warnings, classes)
    unwritten = write_outputs(spec, samples, report, classes)
    return Evaluation(
        quality, extractor.display, uncertainty, report, tuple(warnings), classes, unwritten
    )


@dataclass(frozen=True)
class _Looking:
    """Shows images to the extractor, together with the other processes of a group."""

    spec: EvaluateSpec
    extractor: FeatureExtractor
    watch: Watch
    group: ProcessGroup

    @property
    def device(self) -> torch.device:
        return choose_device(self.spec.device)

    def features_of(self, images: ImageInput) -> tuple[Features, str]:
        """Features, on the leading process, and the hash of the images."""
        rows = HashedRows(images.images)
        with self.watch("images") as view, finite_features(self.spec.extractor_weights):
            found = extract_features(
                rows,
                self.extractor,
                batch_size=self.spec.batch_size,
                device=self.device,
                group=self.group,
                on_progress=view,
            )
        return found, rows.sha256(self.group)

    def stored_reference(self, single_images: bool) -> tuple[ReferenceStatistics, dict[str, Any]]:
        """From the file of a reference, and where it comes from."""
        with self.watch("images") as view, finite_features(self.spec.extractor_weights):
            return read_reference(
                self.spec.reference,
                self.extractor,
                single_images=single_images,
                batch_size=self.spec.batch_size,
                device=self.device,
                group=self.group,
                on_progress=view,
            )

    def reference_of(self, real: ImageInput) -> tuple[ReferenceStatistics | None, dict[str, Any]]:
        """From real images, on the leading process, and where they come from."""
        features, fingerprint = self.features_of(real)
        provenance = {
            "source": real.source,
            "fingerprint": fingerprint,
            "images": len(real.images),
            "resolution": _resolution(real),
            "classes": real.classes,
        }
        found = Reference(features, fingerprint, self.extractor.name, self.extractor.weights_sha256)
        return found.statistics() if self.group.leads else None, provenance


def _measurements(spec: EvaluateSpec, extractor: FeatureExtractor) -> tuple[Measurement, ...]:
    if spec.measurements is not None:
        return spec.measurements
    missing = {
        Measurement.SPATIAL: not extractor.spatial_size,
        Measurement.SCORE: not extractor.classes,
    }
    return tuple(one for one in Measurement if not missing.get(one))


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
    spec: EvaluateSpec,
) -> dict[str, Any]:
    """All that the figures depend on."""
    singles = None if reference.features is None else len(reference.features)
    return {
        **quality_identity(
            len(samples.images),
            samples.images.shape[1:3],
            reference,
            extractor,
            spec.inception_splits,
        ),
        "samples_source": samples.source,
        "samples_sha256": sha256,
        **trial,
        "reference": {**provenance, "file": str(spec.reference)},
        "reference_single_images": singles,
        "kernel_subsets": KERNEL_SUBSETS,
        "neighbourhoods": None if singles is None else min(singles, MOST_NEIGHBOURHOODS),
        "versions": installed_versions(_PACKAGES),
    }


def _other_classes(ours: int | None, theirs: int | None) -> list[str]:
    """What to say of samples and a reference of other numbers of classes."""
    if ours is None or theirs is None or ours == theirs:
        return []
    return [
        f"the samples are of {ours:,} classes, but the reference of {theirs:,}: the distance "
        "contains that difference"
    ]


def _resolution(images: ImageInput) -> str:
    return "x".join(str(side) for side in images.images.shape[1:3])


def _uncertainty(
    features: Features,
    reference: ReferenceStatistics,
    quality: Quality,
    resamples: int,
    watch: Watch,
) -> Uncertainty | None:
    if FRECHET.key not in quality.figures or len(features) >= ENOUGH_SAMPLES or not resamples:
        return None
    with watch("resamples") as view:
        return frechet_uncertainty(
            features.features,
            reference.gaussian,
            reference.features,
            resamples=resamples,
            on_progress=view,
        )


_RANK = "harness.evaluation.standalone.evaluate:evaluate_as_rank"

_UNITS = {"bootstrap": "resamples", "extrapolation": "resamples"}
"""Of stages that count something else than images."""


def run_evaluation(spec: EvaluateSpec, processes: int, watch: Watch) -> Evaluation | None:
    """Measure with several processes on this machine, or as the process that torchrun started.

    Args:
        spec: what to measure.
        processes: to start; 1 works in this one.
        watch: shows progress.

    Returns:
        None in a process that another one leads.

    Raises:
        UserError: as `evaluate_images`.
        RankFailedError: a process crashed or was killed.
    """
    check_processes(processes)
    if processes == 1:
        with group_of_environment() as group:
            return evaluate_images(spec, watch, group)
    with _Views(watch) as views:
        payload = {"spec": TypeAdapter(EvaluateSpec).dump_python(spec, mode="json")}
        found = run_local_ranks(_RANK, payload, processes, views.show)
    return TypeAdapter(Evaluation).validate_python(found)


def evaluate_as_rank(
    payload: Mapping[str, Any], report: ProgressListener, stop: StopRequest
) -> Any:
    """What each of several processes does; the evaluation as JSON takes it."""
    spec = TypeAdapter(EvaluateSpec).validate_python(payload["spec"])
    with group_of_environment() as group:
        evaluation = evaluate_images(spec, silent_watch(stop.between_batches(report)), group)
    return TypeAdapter(Evaluation | None).dump_python(evaluation, mode="json")


class _Views:
    """One view of progress at a time, another one where another unit is counted, or where a stage
    begins anew: samples after real images."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._open = ExitStack()
        self._unit: str | None = None
        self._last = Progress("", 0, 0)
        self._view: ProgressListener = ignore_progress

    def __enter__(self) -> _Views:
        return self

    def __exit__(self, *raised: object) -> None:
        self._open.close()

    def show(self, progress: Progress) -> None:
        unit = _UNITS.get(progress.stage, "images")
        again = progress.stage == self._last.stage and progress.begins_after(self._last)
        self._last = progress
        if unit != self._unit or again:
            self._open.close()
            self._view = self._open.enter_context(self._watch(unit))
            self._unit = unit
        self._view(progress)
