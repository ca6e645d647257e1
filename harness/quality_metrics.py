"""The figures of a set of samples under the names that MLflow, tables and JSON know them by."""

from __future__ import annotations

from harness.evaluation.quality import Quality
from harness.vocabulary import names


def quality_metrics(quality: Quality) -> dict[str, float]:
    """Every figure that was measured, by its name, with the extractor in it."""
    extractor = str(quality.identity["extractor"])
    found: dict[str, float | None] = {
        names.frechet_distance(extractor): quality.frechet_distance,
        names.spatial_frechet_distance(extractor): quality.spatial_frechet_distance,
    }
    for key, spread in (
        (names.kernel_distance(extractor), quality.kernel_distance),
        (names.inception_score(extractor), quality.inception_score),
    ):
        if spread is not None:
            found |= {key: spread.mean, names.spread(key): spread.std}
    if quality.neighbours is not None:
        scores = quality.neighbours
        found |= {
            names.precision(extractor): scores.precision,
            names.recall(extractor): scores.recall,
            names.density(extractor): scores.density,
            names.coverage(extractor): scores.coverage,
        }
    return {key: value for key, value in found.items() if value is not None}
