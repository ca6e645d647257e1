"""The comparison itself, free of any format: rows, places, differences to the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.vocabulary.metrics import Direction
from reports.columns import Column, Kind, columns_for
from reports.identity import floor_mismatch
from reports.load import AblationRuns, machine_differences
from reports.statistics import (
    PairedDifference,
    Place,
    Summary,
    Verdict,
    holm,
    paired_difference,
    rank,
    summarize,
    verdict,
)

FLOOR_LABEL = "real against real"
NO_VALUE = "--"
PLUS_MINUS = "\u00b1"


@dataclass(frozen=True)
class Cell:
    """One figure as text; `std` is None for one seed, `mean` is None where there is no figure."""

    mean: str | None
    std: str | None
    place: Place

    def text(self, plus_minus: str = f" {PLUS_MINUS} ") -> str:
        if self.mean is None:
            return NO_VALUE
        return self.mean if self.std is None else f"{self.mean}{plus_minus}{self.std}"


@dataclass(frozen=True)
class Row:
    """A variant's cells, one a column, or the floor's."""

    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class DifferenceRow:
    """One variant against the baseline in one column."""

    variant: str
    column: Column
    difference: PairedDifference
    adjusted_p: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """What every format of the table shows."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    floor: Row | None
    why_no_floor: str | None
    differences: tuple[DifferenceRow, ...]
    gaps: tuple[str, ...]
    """In words: which variant's figure in which column rests on fewer seeds than it has."""


def compare(runs: AblationRuns) -> Comparison:
    """Summarise over seeds, rank on the printed values, compare with the baseline by seed.

    Speeds and memory are ranked only where the same machine produced them all.
    """
    one_machine = not machine_differences(runs)
    why_no_floor = _why_no_floor(runs)
    values = {key: list(runs.trials[key]) for key in runs.metrics}
    if why_no_floor is None:
        for key, value in runs.floor.values.items():
            values.setdefault(key, []).append(value)
    columns = columns_for(values)
    summaries = [
        [_summary(runs, variant, column.key) for variant in runs.variants] for column in columns
    ]
    cells = [
        _cells(column, summary, ranked=column.kind is not Kind.MACHINE or one_machine)
        for column, summary in zip(columns, summaries, strict=True)
    ]
    return Comparison(
        columns=columns,
        rows=tuple(
            Row(variant, tuple(column[index] for column in cells))
            for index, variant in enumerate(runs.variants)
        ),
        floor=None if why_no_floor else _floor_row(runs, columns),
        why_no_floor=why_no_floor,
        differences=tuple(
            row
            for column in columns
            if column.kind is Kind.QUALITY
            for row in _differences(runs, column)
        ),
        gaps=tuple(_gaps(runs, columns, summaries)),
    )


def _summary(runs: AblationRuns, variant: str, metric: str) -> Summary | None:
    return summarize(list(runs.values(variant, metric).values()))


def _cells(column: Column, summaries: Sequence[Summary | None], ranked: bool) -> list[Cell]:
    rounded = [None if summary is None else column.rounded(summary.mean) for summary in summaries]
    if ranked and column.direction is not Direction.NONE:
        places = rank(rounded, lower_is_better=column.direction is Direction.LOWER)
    else:
        places = [Place.OTHER] * len(rounded)
    return [_cell(column, summary, place) for summary, place in zip(summaries, places, strict=True)]


def _cell(column: Column, summary: Summary | None, place: Place) -> Cell:
    if summary is None:
        return Cell(None, None, place)
    # A count is the same for every seed; a deviation of 0 after it would say nothing.
    constant = column.kind is Kind.COST and summary.std == 0
    std = None if summary.std is None or constant else column.shown(summary.std)
    return Cell(column.shown(summary.mean), std, place)


def _why_no_floor(runs: AblationRuns) -> str | None:
    if not runs.floor.values:
        return "it was not measured"
    return floor_mismatch(runs.floor.identity, runs.identity)


def _floor_row(runs: AblationRuns, columns: Sequence[Column]) -> Row:
    cells = []
    for column in columns:
        value = runs.floor.values.get(column.key)
        shown = None if value is None else column.shown(value)
        cells.append(Cell(shown, None, Place.OTHER))
    return Row(FLOOR_LABEL, tuple(cells))


def _differences(runs: AblationRuns, column: Column) -> list[DifferenceRow]:
    if runs.baseline not in runs.variants:
        return []
    baseline = runs.values(runs.baseline, column.key)
    variants = [variant for variant in runs.variants if variant != runs.baseline]
    differences = [
        paired_difference(runs.values(variant, column.key), baseline) for variant in variants
    ]
    adjusted = holm([difference.p_value for difference in differences])
    return [
        DifferenceRow(variant, column, difference, p, verdict(difference, p))
        for variant, difference, p in zip(variants, differences, adjusted, strict=True)
    ]


def _gaps(
    runs: AblationRuns, columns: Sequence[Column], summaries: Sequence[Sequence[Summary | None]]
) -> list[str]:
    gaps = []
    for column, by_variant in zip(columns, summaries, strict=True):
        if column.key not in runs.metrics:
            continue
        for variant, summary in zip(runs.variants, by_variant, strict=True):
            trials = int((runs.trials["variant"] == variant).sum())
            count = 0 if summary is None else summary.count
            # A variant without routers has no routing to lack, nor has one that was not probed; and
            # trials of before there were such figures lack the shades of quality.
            expected = count or column.kind not in (Kind.PROBE, Kind.SHADES)
            if expected and count < trials:
                gaps.append(f"{column.title} of {variant} (finite in {count} of {trials} seeds)")
    return gaps
