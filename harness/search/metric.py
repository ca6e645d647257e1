"""The short names of metrics in search files, and the names that trials record them under."""

from __future__ import annotations

from collections.abc import Callable

from harness.vocabulary import names

_ON_EXTRACTOR: dict[str, Callable[[str], str]] = {
    "fd": names.frechet_distance,
    "sfd": names.spatial_frechet_distance,
    "kd": names.kernel_distance,
    "is": names.inception_score,
    "precision": names.precision,
    "recall": names.recall,
    "density": names.density,
    "coverage": names.coverage,
}


def recorded_name(metric: str, extractor: str) -> str:
    """The key in a trial's metrics; `fd` on Inception is `fid`."""
    on_extractor = _ON_EXTRACTOR.get(metric)
    return metric if on_extractor is None else on_extractor(extractor)
