"""What is written and said of an evaluation: its JSON, and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.evaluate_classes import NamedClasses
from harness.evaluation.metrics.uncertainty import ENOUGH_SAMPLES, Uncertainty
from harness.evaluation.quality import Quality
from harness.quality_metrics import quality_metrics
from harness.vocabulary.names import frechet_distance


def evaluation_warnings(quality: Quality, provenance: Mapping[str, Any]) -> list[str]:
    """What a reader of the figures must know, a line each.

    Args:
        quality: the figures.
        provenance: of the reference.
    """
    found = [f"{metric.value} left out: {why}" for metric, why in quality.left_out.items()]
    count = quality.identity["samples"]
    for what, number in (("samples", count), ("reference images", provenance.get("images"))):
        if number is not None and number < ENOUGH_SAMPLES:
            found.append(
                f"{number:,} {what} are fewer than {ENOUGH_SAMPLES:,}: the figures are biased by "
                "that, and compare with none of another number"
            )
    if provenance.get("assumed"):
        found.append(_assumption(provenance))
    theirs, ours = provenance.get("resolution"), quality.identity["resolution"]
    if theirs not in (None, ours):
        found.append(f"the samples are {ours}, but the reference is of images of {theirs}")
    return found


def _assumption(provenance: Mapping[str, Any]) -> str:
    """What is taken for granted of a file from elsewhere."""
    said = "extractor and resize of the reference are not recorded and are taken to be the standard"
    if {"mu_s", "arr_0"} & set(provenance["arrays"]):
        return f"{said} ones"
    return (
        f"{said} ones; a file with mu and sigma alone is as pytorch-fid or clean-fid write it, "
        "which resize otherwise"
    )


def evaluation_report(
    quality: Quality,
    uncertainty: Uncertainty | None,
    warnings: Sequence[str],
    classes: NamedClasses | None = None,
) -> dict[str, Any]:
    """Figures by their names in MLflow, and all that they depend on, as JSON takes it."""
    report: dict[str, Any] = {
        "figures": quality_metrics(quality),
        "identity": dict(quality.identity),
        "left_out": {metric.value: why for metric, why in quality.left_out.items()},
        "warnings": list(warnings),
    }
    if quality.kernel_distance is not None:
        report["identity"]["kernel_subset_size"] = quality.kernel_distance.subset_size
    if uncertainty is not None and uncertainty.interval is not None:
        interval = uncertainty.interval
        report["interval"] = {
            "low": interval.centred[0],
            "high": interval.centred[1],
            "confidence": interval.confidence,
            "resamples": interval.resamples,
            "standard_error": interval.standard_error,
        }
    if uncertainty is not None and uncertainty.extrapolation is not None:
        line = uncertainty.extrapolation
        report["extrapolation"] = {
            "value": line.value,
            "standard_error": line.standard_error,
            "sizes": list(line.sizes),
            "distances": list(line.distances),
            "rough": uncertainty.rough,
        }
    if classes is not None:
        report["per_class"] = {
            "metric": frechet_distance(str(quality.identity["extractor"])),
            "mean": classes.distances.mean,
            "samples_a_class": classes.distances.samples,
            "reference_images_a_class": classes.distances.reference,
            "by_class": classes.by_name,
            "left_out": classes.left_out,
        }
    return report
