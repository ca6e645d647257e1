"""The comparison itself, free of any format: rows, places, differences to the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.vocabulary.metrics import Direction
from reports.columns import Column, Kind, columns_for
from reports.identity import floor_mismatch
from reports.load import AblationRuns
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
    std: str | None = None
    place: Place = Place.OTHER

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

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """With the floor, where there is one, as the last."""
        return (*self.rows, self.floor) if self.floor else self.rows


def compare(runs: AblationRuns) -> Comparison:
    """Summarise over seeds, rank on the printed values, compare with the baseline by seed.

    Speeds and memory are ranked only where the same machine produced them all.
    """
    one_machine = not runs.machine_differences
    floor = runs.floor.values
    mismatch = floor_mismatch(runs.floor.identity, runs.identity)
    why_no_floor = mismatch if floor else "it was not measured"
    values = {key: list(runs.trials[key]) for key in runs.metrics}
    if why_no_floor is None:
        for key, value in floor.items():
            values.setdefault(key, []).append(value)
    columns = columns_for(values)
    summaries = [
        [summarize(runs.values(variant, column.key).values()) for variant in runs.variants]
        for column in columns
    ]
    cells = [
        _cells(column, of_column, ranked=one_machine or column.kind is not Kind.MACHINE)
        for column, of_column in zip(columns, summaries, strict=True)
    ]
    floor_cells = (
        Cell(column.shown(floor[column.key]) if column.key in floor else None) for column in columns
    )
    return Comparison(
        columns=columns,
        rows=tuple(
            Row(variant, tuple(of_column[index] for of_column in cells))
            for index, variant in enumerate(runs.variants)
        ),
        floor=None if why_no_floor else Row(FLOOR_LABEL, tuple(floor_cells)),
        why_no_floor=why_no_floor,
        differences=tuple(
            row
            for column in columns
            if column.kind is Kind.QUALITY
            for row in _differences(runs, column)
        ),
        gaps=tuple(_gaps(runs, columns, summaries)),
    )


def _cells(column: Column, summaries: Sequence[Summary | None], ranked: bool) -> list[Cell]:
    means = [column.shown(summary.mean) if summary else None for summary in summaries]
    places = [Place.OTHER] * len(means)
    if ranked and column.direction is not Direction.NONE:
        printed = [None if mean is None else float(mean) for mean in means]
        places = rank(printed, lower_is_better=column.direction is Direction.LOWER)
    # A count is the same for every seed; a deviation of 0 after it would say nothing.
    constant = column.kind is Kind.COST
    stds = [
        column.shown(summary.std)
        if summary and summary.std is not None and (summary.std or not constant)
        else None
        for summary in summaries
    ]
    return [Cell(*cell) for cell in zip(means, stds, places, strict=True)]


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
) -> Iterator[str]:
    for column, of_column in zip(columns, summaries, strict=True):
        if column.key not in runs.metrics:
            continue
        for variant, summary in zip(runs.variants, of_column, strict=True):
            trials, count = len(runs.of(variant)), summary.count if summary else 0
            # A variant without routers has no routing to lack, nor has one that was not probed; and
            # trials of before there were such figures lack the shades of quality.
            expected = count or column.kind not in (Kind.PROBE, Kind.SHADES)
            if expected and count < trials:
                yield f"{column.title} of {variant} (finite in {count} of {trials} seeds)"
