"""What is written of an evaluation: figures, classes and warnings, as JSON, CSV and `.npz`."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.class_labels import ClassLabels, known_labels
from harness.evaluation.image_inputs import ImageInput
from harness.evaluation.metrics.per_class import PerClassDistance, per_class_frechet
from harness.evaluation.metrics.uncertainty import ENOUGH_SAMPLES, Uncertainty
from harness.evaluation.quality import KERNEL_SUBSET_SIZE, Quality
from harness.evaluation.standalone.spec import EvaluateSpec
from harness.machine.files import check_writable, write_json, write_text
from harness.machine.npz import export_adm
from harness.vocabulary.metrics import FRECHET
from models.errors import UserError


def measure_classes(
    samples: NDArray[np.float32],
    reference: NDArray[np.float32] | None,
    labels: ClassLabels,
    least: int,
    reference_path: Path,
) -> PerClassDistance:
    """Measure all classes with at least `least` images on both sides, by features (N, D), (M, D).

    Raises:
        UserError: the labels are not those of the features.
    """
    if reference is None or len(reference) != len(labels.reference):
        there = "no" if reference is None else f"{len(reference):,}"
        raise UserError(
            f"{reference_path} holds {len(labels.reference):,} labels, but {there} features of "
            "single images: name the images themselves as --reference"
        )
    found = per_class_frechet(
        samples, labels.samples, reference, labels.reference, names=labels.names, least=least
    )
    return replace(found, mapping=labels.mapping)


def classes_csv(classes: PerClassDistance, extractor: str) -> str:
    """A line a class, those that were left out with the reason; counts are part of the header, as
    distances of other counts belong in no column of these."""
    counts = f"{classes.samples} samples and {classes.reference} reference images"
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["class", f"{FRECHET.recorded(extractor)} of {counts}", "left out"])
    writer.writerows([name, repr(value), ""] for name, value in classes.by_class.items())
    writer.writerows([name, "", reason] for name, reason in classes.left_out.items())
    return out.getvalue()


def check_outputs(spec: EvaluateSpec) -> None:
    """See before anything is computed that what is written can be.

    Raises:
        UserError: a file cannot be written there, or its name does not fit.
    """
    for path in spec.outputs:
        check_writable(path)
    if spec.export is not None and spec.export.suffix != ".npz":
        raise UserError(f"--export adm={spec.export} must end in .npz")


def write_outputs(
    spec: EvaluateSpec,
    samples: ImageInput,
    report: Mapping[str, Any],
    classes: PerClassDistance | None,
) -> dict[str, str]:
    """Write what is asked for, samples with their labels if they have some.

    Returns:
        The files that could not be written, and why. It is no error: hours of work may lie behind
        the figures, which can still be printed.
    """
    writers: dict[Path, Callable[[Path], None]] = {}
    if spec.export is not None:
        writers[spec.export] = lambda path: export_adm(
            samples.images, path, known_labels(Path(samples.source))
        )
    if spec.json is not None:
        writers[spec.json] = lambda path: write_json(path, report, indent=2)
    if classes is not None and spec.per_class_csv is not None:
        csv = classes_csv(classes, str(report["identity"]["extractor"]))
        writers[spec.per_class_csv] = lambda path: write_text(path, csv)
    failed = {}
    for path, write in writers.items():
        try:
            write(path)
        except OSError as error:
            failed[str(path)] = str(error)
    return failed


def evaluation_warnings(
    quality: Quality, provenance: Mapping[str, Any], classes: int | None = None
) -> list[str]:
    """What a reader of the figures must know, a line each, with the provenance of the reference and
    the number of classes of the samples, if these have labels."""
    found = []
    theirs = provenance.get("classes")
    if None not in (classes, theirs) and classes != theirs:
        found.append(
            f"the samples are of {classes:,} classes, but the reference of {theirs:,}: the "
            "distance contains that difference"
        )
    found += [f"{metric.value} left out: {why}" for metric, why in quality.left_out.items()]
    count = quality.identity["samples"]
    for what, number in (("samples", count), ("reference images", provenance.get("images"))):
        if number is not None and number < ENOUGH_SAMPLES:
            found.append(
                f"{number:,} {what} are fewer than {ENOUGH_SAMPLES:,}: the figures are biased by "
                "that, and compare with none of another number"
            )
    if provenance.get("assumed"):
        found.append(
            "extractor and resize of the reference are not recorded and are taken to be the "
            "standard ones"
        )
        if not {"mu_s", "arr_0"} & set(provenance["arrays"]):
            found[-1] += (
                "; a file with mu and sigma alone is as pytorch-fid or clean-fid write it, which "
                "resize otherwise"
            )
    theirs, ours = provenance.get("resolution"), quality.identity["resolution"]
    if theirs not in (None, ours):
        found.append(f"the samples are {ours}, but the reference is of images of {theirs}")
    return found


def evaluation_report(
    quality: Quality,
    uncertainty: Uncertainty | None,
    warnings: Sequence[str],
    classes: PerClassDistance | None = None,
) -> dict[str, Any]:
    """Figures by their names in MLflow, and all that they depend on, as JSON takes it."""
    report: dict[str, Any] = {
        "figures": quality.recorded(),
        "identity": dict(quality.identity),
        "left_out": {metric.value: why for metric, why in quality.left_out.items()},
        "warnings": list(warnings),
    }
    if "kd" in quality.figures:
        sides = quality.identity["samples"], quality.identity["reference_single_images"]
        report["identity"]["kernel_subset_size"] = min(KERNEL_SUBSET_SIZE, *sides)
        if quality.figures["kd"].std is None:
            report["identity"]["kernel_subsets"] = 1
    if uncertainty is not None:
        interval = asdict(uncertainty.interval)
        low, high = uncertainty.interval.centred
        kept = ("confidence", "resamples", "standard_error")
        report["interval"] = {"low": low, "high": high, **{key: interval[key] for key in kept}}
        if uncertainty.extrapolation is not None:
            report["extrapolation"] = asdict(uncertainty.extrapolation)
    if classes is not None:
        report["per_class"] = {
            "metric": FRECHET.recorded(str(quality.identity["extractor"])),
            "mean": classes.mean,
            "samples_a_class": classes.samples,
            "reference_images_a_class": classes.reference,
            "mapping": classes.mapping,
            "by_class": classes.by_class,
            "left_out": classes.left_out,
        }
    return report
