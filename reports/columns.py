"""The columns of a table: which metric, under which heading, in which unit and precision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from harness.vocabulary import names
from harness.vocabulary.metrics import INCEPTION, METRICS, Direction, Metric

EXTRACTOR_TITLES = {
    "efficientnet_lite0": "EfficientNet-Lite0",
    "inception": "Inception",
}


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
    def arrow(self) -> str:
        """Which way is good; empty where neither is."""
        return self.direction.arrow

    @property
    def heading(self) -> str:
        return f"{self.title} {self.arrow}".rstrip()

    @property
    def title_lines(self) -> list[str]:
        """The title in at most two lines, broken before a parenthesis or else before a word."""
        words, parenthesis, rest = self.title.partition(" (")
        if parenthesis:
            return [words, f"({rest}"]
        return self.title.rsplit(" ", 1)

    def shown(self, value: float) -> str:
        """The raw value in the column's unit and precision."""
        return f"{value / self.unit:.{self.decimals}f}"

    def signed(self, difference: float) -> str:
        """A difference of raw values, its sign always written."""
        return ("-" if difference < 0 else "+") + self.shown(abs(difference))

    def rounded(self, value: float) -> float:
        """The number that `shown` prints; rankings compare these."""
        return float(self.shown(value))


@dataclass(frozen=True)
class _Measure:
    """What is known of a metric before its values are seen."""

    key: str
    title: str
    """`{unit}` stands where the unit's name goes."""
    direction: Direction
    kind: Kind
    decimals: int | None = None
    """Fixed; None takes `digits` significant digits of the largest value."""
    digits: int = 3
    units: tuple[tuple[float, str], ...] = ((1.0, ""),)
    """From small to large; the largest that is not above the largest value is taken."""
    compact: bool = True


def _probe(key: str, title: str, decimals: int) -> _Measure:
    """Neither end is good: weights can be too smooth and too sharp."""
    return _Measure(key, title, Direction.NONE, Kind.PROBE, decimals, compact=False)


_COUNT = ((1.0, ""), (1e3, "K"), (1e6, "M"), (1e9, "G"), (1e12, "T"))
_OPERATIONS = _COUNT[2:]

_WITHOUT_EXTRACTOR = (
    _Measure(names.VALIDATION_LOSS, "validation loss", Direction.LOWER, Kind.QUALITY, 4),
    _Measure(
        names.PARAMETERS,
        "parameters ({unit})",
        Direction.NONE,
        Kind.COST,
        digits=4,
        units=((1e3, "K"), (1e6, "M"), (1e9, "B")),
    ),
    _Measure(names.FLOPS, "{unit}FLOPs", Direction.NONE, Kind.COST, digits=4, units=_OPERATIONS),
    _Measure(
        names.MACS,
        "{unit}MACs",
        Direction.NONE,
        Kind.COST,
        digits=4,
        units=_OPERATIONS,
        compact=False,
    ),
    _Measure(names.HEADS, "heads", Direction.NONE, Kind.COST, 0, compact=False),
    _Measure(names.HEAD_WIDTH, "head width", Direction.NONE, Kind.COST, 0, compact=False),
    _Measure(names.QKV_BIAS, "qkv bias (1 = yes)", Direction.NONE, Kind.COST, 0, compact=False),
    _Measure(names.TRAIN_IMAGES_PER_SECOND, "train images/s", Direction.HIGHER, Kind.MACHINE),
    _Measure(names.SAMPLING_IMAGES_PER_SECOND, "sampling images/s", Direction.HIGHER, Kind.MACHINE),
    _Measure(
        names.PEAK_MEMORY,
        "peak memory (MiB)",
        Direction.LOWER,
        Kind.MACHINE,
        digits=4,
        units=((2.0**20, ""),),
        compact=False,
    ),
    _probe(names.ATTENTION_ENTROPY, "attention entropy", 3),
    _probe(names.ATTENTION_EFFECTIVE_RANK, "effective rank", 2),
    _probe(names.TOKEN_SIMILARITY, "token similarity", 3),
    _probe(names.ROUTING_ENTROPY, "routing entropy", 3),
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
    finite = {
        key: [abs(value) for value in raw if math.isfinite(value)]
        for key, raw in values.items()
        if not names.is_detail(key)
    }
    measures = (
        *(measure for metric in METRICS if metric.compared for measure in _of(metric, finite)),
        *(measure for metric in METRICS if not metric.compared for measure in _of(metric, finite)),
        *_WITHOUT_EXTRACTOR,
    )
    return tuple(
        _column(measure, max(finite[measure.key]))
        for measure in measures
        if finite.get(measure.key)
    )


def _of(metric: Metric, keys: Iterable[str]) -> list[_Measure]:
    """A metric on each extractor that it was recorded on: a compared one on Inception first, then
    in the order of the keys.

    Those that are not compared are many, so they bear the extractor's name only where there are
    several; the caption has it.
    """
    found = {key: metric.extractor_of(key) for key in keys}
    extractors = {key: extractor for key, extractor in found.items() if extractor is not None}
    if metric.compared:
        # Python sorts stably, so the others keep their order.
        extractors = dict(sorted(extractors.items(), key=lambda item: item[1] != INCEPTION))
    measures = []
    for key, extractor in extractors.items():
        title = metric.printed_title(extractor)
        if extractor != INCEPTION and (metric.compared or len(extractors) > 1):
            title = f"{title} ({extractor_title(extractor)})"
        measures.append(
            _Measure(
                key,
                title,
                metric.direction,
                Kind.QUALITY if metric.compared else Kind.SHADES,
                metric.decimals,
                units=((metric.unit, ""),),
                compact=metric.compared,
            )
        )
    return measures


def _column(measure: _Measure, largest: float) -> Column:
    fitting = [unit for unit in measure.units if unit[0] <= largest]
    unit, name = fitting[-1] if fitting else measure.units[0]
    return Column(
        key=measure.key,
        title=measure.title.replace("{unit}", name),
        direction=measure.direction,
        kind=measure.kind,
        unit=unit,
        decimals=_decimals(measure, largest / unit),
        compact=measure.compact,
    )


def _decimals(measure: _Measure, largest: float) -> int:
    if measure.decimals is not None:
        return measure.decimals
    before_the_point = math.floor(math.log10(largest)) + 1 if largest > 0 else 1
    return min(max(measure.digits - before_the_point, 0), 6)
