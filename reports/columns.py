"""The columns of a table: which metric, under which heading, in which unit and precision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from harness.vocabulary import names
from harness.vocabulary.metrics import INCEPTION, METRICS, Direction, Metric

EXTRACTOR_TITLES = {"efficientnet_lite0": "EfficientNet-Lite0"}


class Kind(Enum):
    """What a column's figures depend on besides the model."""

    QUALITY = "the metric's identity; compared with the baseline by seed"
    SHADES = "the metric's identity; tells what kind of quality, and is not compared by seed"
    MACHINE = "the machine and what else ran on it"
    COST = "nothing"
    PROBE = "the images and timesteps of the probe; tells why, not how good"


@dataclass(frozen=True)
class Column:
    """One metric as a table shows it."""

    key: str
    """The metric's key in MLflow and the column's name in CSV."""
    title: str
    """With the unit, without the arrow."""
    direction: Direction
    kind: Kind
    unit: float
    """Raw value of one shown unit: 1e9 for GFLOPs."""
    decimals: int
    compact: bool
    """Whether it stands in the LaTeX table, where width is scarce."""

    @property
    def heading(self) -> str:
        """The title and which way is good."""
        return f"{self.title} {self.direction.arrow}".rstrip()

    @property
    def title_lines(self) -> list[str]:
        """The title in at most two lines, broken before a parenthesis or else before a word."""
        words, parenthesis, rest = self.title.partition(" (")
        return [words, f"({rest}"] if parenthesis else self.title.rsplit(" ", 1)

    def shown(self, value: float) -> str:
        """The raw value in the column's unit and precision."""
        return f"{value / self.unit:.{self.decimals}f}"

    def signed(self, difference: float) -> str:
        """A difference of raw values, its sign always written."""
        return ("-" if difference < 0 else "+") + self.shown(abs(difference))


@dataclass(frozen=True)
class _Measure:
    """What is known of a metric before its values are seen."""

    key: str
    title: str
    """`{unit}` stands where the unit's name goes."""
    kind: Kind = Kind.COST
    direction: Direction = Direction.NONE
    decimals: int | None = None
    """Fixed; None takes `digits` significant digits of the largest value."""
    digits: int = 4
    units: tuple[tuple[float, str], ...] = ((1.0, ""),)
    """From small to large; the largest that is not above the largest value is taken."""
    compact: bool = False

    def column(self, largest: float) -> Column:
        unit, name = next((u for u in reversed(self.units) if u[0] <= largest), self.units[0])
        decimals = self.decimals
        if decimals is None:
            before_the_point = math.floor(math.log10(largest / unit)) + 1 if largest > 0 else 1
            decimals = min(max(self.digits - before_the_point, 0), 6)
        title = self.title.replace("{unit}", name)
        return Column(self.key, title, self.direction, self.kind, unit, decimals, self.compact)


_LOWER, _HIGHER = Direction.LOWER, Direction.HIGHER
_PARAMETERS = ((1e3, "K"), (1e6, "M"), (1e9, "B"))
_OPERATIONS = ((1e6, "M"), (1e9, "G"), (1e12, "T"))
_TRAIN_SPEED, _SAMPLING_SPEED = names.TRAIN_IMAGES_PER_SECOND, names.SAMPLING_IMAGES_PER_SECOND

_WITHOUT_EXTRACTOR = (
    _Measure(names.VALIDATION_LOSS, "validation loss", Kind.QUALITY, _LOWER, 4, compact=True),
    _Measure(names.PARAMETERS, "parameters ({unit})", units=_PARAMETERS, compact=True),
    _Measure(names.FLOPS, "{unit}FLOPs", units=_OPERATIONS, compact=True),
    _Measure(names.MACS, "{unit}MACs", units=_OPERATIONS),
    _Measure(names.HEADS, "heads", decimals=0),
    _Measure(names.HEAD_WIDTH, "head width", decimals=0),
    _Measure(names.QKV_BIAS, "qkv bias (1 = yes)", decimals=0),
    _Measure(_TRAIN_SPEED, "train images/s", Kind.MACHINE, _HIGHER, digits=3, compact=True),
    _Measure(_SAMPLING_SPEED, "sampling images/s", Kind.MACHINE, _HIGHER, digits=3, compact=True),
    _Measure(names.TRAINING_MEMORY, "training memory (MiB)", units=((2.0**20, ""),)),
    # Neither end is good: weights can be too smooth and too sharp.
    _Measure(names.ATTENTION_ENTROPY, "attention entropy", Kind.PROBE, decimals=3),
    _Measure(names.ATTENTION_EFFECTIVE_RANK, "effective rank", Kind.PROBE, decimals=2),
    _Measure(names.TOKEN_SIMILARITY, "token similarity", Kind.PROBE, decimals=3),
    _Measure(names.ROUTING_ENTROPY, "routing entropy", Kind.PROBE, decimals=3),
)


def extractor_title(extractor: str) -> str:
    """The name in print; an extractor that is not listed gets its key with words capitalised."""
    words = extractor.replace("_", " ").split()
    fallback = " ".join(word[0].upper() + word[1:] for word in words)
    return EXTRACTOR_TITLES.get(extractor, fallback)


def columns_for(values: Mapping[str, Sequence[float]]) -> tuple[Column, ...]:
    """The columns of the metrics that have at least one finite value, in table order.

    Args:
        values: metric key to the raw figures that the column will show; they choose its unit and
            precision.
    """
    largest = {
        key: max(finite)
        for key, raw in values.items()
        if not names.is_detail(key) and (finite := [abs(v) for v in raw if math.isfinite(v)])
    }
    compared_first = sorted(METRICS, key=lambda metric: not metric.compared)
    of_metrics = (measure for metric in compared_first for measure in _of(metric, largest))
    return tuple(
        measure.column(largest[measure.key])
        for measure in (*of_metrics, *_WITHOUT_EXTRACTOR)
        if measure.key in largest
    )


def _of(metric: Metric, keys: Iterable[str]) -> Iterator[_Measure]:
    """A metric on each extractor that it was recorded on: a compared one on Inception first, then
    in the order of the keys.

    Those that are not compared are many, so they bear the extractor's name only where there are
    several; the caption has it.
    """
    found = {key: name for key in keys if (name := metric.extractor_of(key)) is not None}
    if metric.compared:
        found = dict(sorted(found.items(), key=lambda item: item[1] != INCEPTION))
    for key, extractor in found.items():
        title = metric.printed_title(extractor)
        if extractor != INCEPTION and (metric.compared or len(found) > 1):
            title = f"{title} ({extractor_title(extractor)})"
        yield _Measure(
            key,
            title,
            Kind.QUALITY if metric.compared else Kind.SHADES,
            metric.direction,
            metric.decimals,
            units=((metric.unit, ""),),
            compact=metric.compared,
        )
