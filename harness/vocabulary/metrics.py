"""The metrics that networks are judged by, each written down once.

A new metric of images is one entry of `METRICS` and one function of `harness.evaluation.quality`:
configurations, searches, commands and tables take its names, its direction and its digits from
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal

INCEPTION = "inception"
"""The extractor whose features FID, sFID and KID mean."""


class Direction(Enum):
    """Which end of a metric's range is good."""

    LOWER = "lower"
    HIGHER = "higher"
    NONE = "none"

    @property
    def arrow(self) -> str:
        """An arrow towards the good end; empty where neither is good."""
        return {"lower": "\u2193", "higher": "\u2191", "none": ""}[self.value]


class Measurement(Enum):
    """What is computed in one go, and gives one or several metrics; the value is its short name."""

    FRECHET = "fd"
    SPATIAL = "sfd"
    KERNEL = "kd"
    SCORE = "is"
    NEIGHBOURS = "pr"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that the measurement gives."""
        return tuple(metric for metric in METRICS if metric.measurement is self)


@dataclass(frozen=True)
class Metric:
    """A metric of generated images, as one extractor of features sees them."""

    key: str
    """Its name in configurations and searches; `KEY_EXTRACTOR` is its name in MLflow."""
    meaning: str
    title: str
    """In print, where the extractor is named beside it."""
    direction: Direction
    measurement: Measurement
    inception_title: str | None = None
    """The field's own name of it on Inception features, which in small letters is its name in
    MLflow; None where there is none."""
    decimals: int = 2
    """In tables of several trials."""
    fine_decimals: int = 4
    """Where one set of images is measured, and all that the figure depends on is printed."""
    unit: float = 1.0
    """The value that is printed as 1."""
    compared: bool = False
    """Whether reports compare it with the baseline by seed. The others tell what kind of quality
    it is, and would only repeat the comparison."""

    @property
    def inception_key(self) -> str | None:
        """The name in MLflow on Inception features, where the field has one of its own."""
        return None if self.inception_title is None else self.inception_title.lower()

    def recorded(self, extractor: str) -> str:
        """The name in MLflow: `fid` on Inception features, `fd_EXTRACTOR` on others."""
        return (extractor == INCEPTION and self.inception_key) or f"{self.key}_{extractor}"

    def extractor_of(self, recorded: str) -> str | None:
        """The extractor in a name that `recorded` gave, Inception where it is a name of the field's
        own such as `fid`; None where the name is not of this metric."""
        if recorded == self.inception_key:
            return INCEPTION
        prefix = f"{self.key}_"
        return recorded.removeprefix(prefix) if recorded.startswith(prefix) else None

    def printed_title(self, extractor: str) -> str:
        """The title with its unit, without the extractor: `FID`, or `KD x 1000`."""
        title = (extractor == INCEPTION and self.inception_title) or self.title
        return title if self.unit == 1 else f"{title} x {1 / self.unit:g}"


LOWER, HIGHER = Direction.LOWER, Direction.HIGHER

FRECHET = Metric("fd", "Frechet distance", "FD", LOWER, Measurement.FRECHET, "FID", compared=True)

METRICS = (
    FRECHET,
    Metric(
        "sfd", "Frechet distance of spatial features", "sFD", LOWER, Measurement.SPATIAL, "sFID"
    ),
    Metric("kd", "kernel distance", "KD", LOWER, Measurement.KERNEL, "KID", unit=1e-3),
    Metric(
        "is",
        "Inception score",
        "IS",
        HIGHER,
        Measurement.SCORE,
        "IS",
        fine_decimals=3,
        compared=True,
    ),
    *(
        Metric(key, key, key, HIGHER, Measurement.NEIGHBOURS, decimals=3)
        for key in ("precision", "recall", "density", "coverage")
    ),
)
"""All of them, in the order in which configurations and commands list them."""

BY_KEY = {metric.key: metric for metric in METRICS}

VALIDATION_LOSS = "validation_loss"
"""The loss on held-out images: the one metric that needs no extractor, recorded under this name."""

if TYPE_CHECKING:
    MetricKey = str
    JudgedBy = str
else:
    MetricKey = Literal[tuple(BY_KEY)]
    """The key of one of `METRICS`; other texts are refused where a configuration is read."""
    JudgedBy = Literal[VALIDATION_LOSS, MetricKey]
    """What the best weights of a training, or the best trial of a search, can be chosen by."""


def recorded_name(key: JudgedBy, extractor: str) -> str:
    """The name under which MLflow has a metric of images or the validation loss."""
    return key if key == VALIDATION_LOSS else BY_KEY[key].recorded(extractor)


def higher_is_better(key: JudgedBy) -> bool:
    """Whether the largest value is the best one."""
    return key != VALIDATION_LOSS and BY_KEY[key].direction is Direction.HIGHER
