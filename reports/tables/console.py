"""The table in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from reports.columns import Column, Kind
from reports.comparison import NO_VALUE, PLUS_MINUS, Cell, Comparison
from reports.facts import (
    measured_sentence,
    probe_sentence,
    provenance_notes,
    reading_notes,
    spread_sentence,
)
from reports.load import AblationRuns
from reports.statistics import Place

_STYLES = {Place.BEST: "bold green", Place.SECOND: "underline", Place.OTHER: ""}
_NAME_WIDTH = 18
"""Characters of a variant's name in a line."""
_ANY_WIDTH = 10_000
_PARTS = ((Kind.QUALITY,), (Kind.SHADES,), (Kind.COST, Kind.MACHINE), (Kind.PROBE,))


def console_table(runs: AblationRuns, comparison: Comparison) -> RenderableType:
    """The question, the table, what the differences to the baseline are worth, and the notes."""
    sentences = (
        "bold green: best; underlined: second best, judged as printed.",
        spread_sentence(runs),
        measured_sentence(runs),
        probe_sentence(comparison),
    )
    notes = (*reading_notes(runs, comparison), *provenance_notes(runs, comparison))
    return Group(
        Text(f"{runs.ablation} ({runs.scale}): {runs.question}", style="bold"),
        _Figures(comparison),
        *([_verdicts(runs, comparison)] if comparison.differences else []),
        *(Text(sentence) for sentence in sentences if sentence),
        *(Text(f"! {note}", style="yellow") for note in notes),
    )


@dataclass(frozen=True)
class _Figures:
    """One table where the terminal is wide enough, else one for each kind of figure."""

    comparison: Comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = self.comparison.columns
        whole = self._table(range(len(columns)))
        wide = options.update(width=_ANY_WIDTH)
        if console.measure(whole, options=wide).maximum <= options.max_width:
            yield whole
            return
        for kinds in _PARTS:
            part = [index for index, column in enumerate(columns) if column.kind in kinds]
            if part:
                yield self._table(part)

    def _table(self, shown: Sequence[int]) -> Table:
        table = _empty_table()
        table.add_column("variant", overflow="fold", max_width=_NAME_WIDTH)
        for index in shown:
            heading = _heading(self.comparison.columns[index])
            table.add_column(heading, justify="right", overflow="fold")
        for row in self.comparison.all_rows:
            cells = [row.cells[index] for index in shown]
            if row is self.comparison.floor:
                if all(cell.mean is None for cell in cells):
                    continue
                table.add_section()
            table.add_row(Text(row.label), *map(_text, cells))
        return table


def _empty_table(title: Text | None = None) -> Table:
    return Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title=title, title_justify="left"
    )


def _heading(column: Column) -> str:
    """The arrow goes on the shorter line, so that columns stay as narrow as their figures."""
    lines = column.title_lines
    shortest = min(range(len(lines)), key=lambda index: len(lines[index]))
    lines[shortest] = f"{lines[shortest]} {column.direction.arrow}".rstrip()
    return "\n".join(lines)


def _text(cell: Cell) -> Text:
    """The break, where a narrow terminal needs one, goes before the sign."""
    # As a part and not as the whole text, whose style would reach into the padding.
    return Text.assemble((cell.text(plus_minus=f" {PLUS_MINUS}\u00a0"), _STYLES[cell.place]))


def _verdicts(runs: AblationRuns, comparison: Comparison) -> Table:
    title = Text(f"Differences to {runs.baseline}, paired by seed", style="bold")
    table = _empty_table(title)
    table.add_column("metric", overflow="fold")
    table.add_column("variant", overflow="fold", max_width=_NAME_WIDTH)
    table.add_column("difference", justify="right")
    table.add_column("verdict", overflow="fold")
    previous = None
    for row in comparison.differences:
        mean = row.difference.mean
        table.add_row(
            Text("" if row.column is previous else row.column.title),
            Text(row.variant),
            Text(NO_VALUE if mean is None else row.column.signed(mean)),
            Text(row.verdict.value),
        )
        previous = row.column
    return table
