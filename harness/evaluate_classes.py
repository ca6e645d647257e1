"""`evaluate --per-class`: the distance of each class, under the names of the classes."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.class_labels import ClassLabels
from harness.evaluation.metrics.per_class import PerClassDistance, per_class_frechet
from harness.vocabulary.names import frechet_distance
from models.errors import UserError


@dataclass(frozen=True)
class NamedClasses:
    """Distances, and what the classes are called."""

    names: tuple[str, ...]
    """By label."""
    distances: PerClassDistance

    @property
    def by_name(self) -> dict[str, float]:
        """The distance of each class that was measured."""
        return {self.names[one]: value for one, value in self.distances.by_class.items()}

    @property
    def left_out(self) -> dict[str, str]:
        """Why the others were not."""
        return {self.names[one]: reason for one, reason in self.distances.left_out.items()}


def measure_classes(
    samples: NDArray[np.float32],
    reference: NDArray[np.float32] | None,
    labels: ClassLabels,
    least: int,
    reference_path: Path,
) -> NamedClasses:
    """Measure all classes with enough images.

    Args:
        samples: (N, D) features.
        reference: (M, D); None where the reference holds none.
        labels: of both.
        least: images a class needs on both sides.
        reference_path: for messages.

    Raises:
        UserError: the labels are not those of the features.
    """
    if reference is None or len(reference) != len(labels.reference):
        there = "no" if reference is None else f"{len(reference):,}"
        raise UserError(
            f"{reference_path} holds {len(labels.reference):,} labels, but {there} features of "
            "single images: name the images themselves as --reference"
        )
    distances = per_class_frechet(samples, labels.samples, reference, labels.reference, least=least)
    return NamedClasses(labels.names, distances)


def classes_csv(classes: NamedClasses, extractor: str) -> str:
    """A line a class, those that were left out with the reason; counts are part of the header, as
    distances of other counts belong in no column of these."""
    found = classes.distances
    column = (
        f"{frechet_distance(extractor)} of {found.samples} samples and {found.reference} "
        "reference images"
    )
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["class", column, "left out"])
    for name, value in classes.by_name.items():
        writer.writerow([name, repr(value), ""])
    for name, reason in classes.left_out.items():
        writer.writerow([name, "", reason])
    return out.getvalue()
