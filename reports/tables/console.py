"""The table in a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.columns import Column, Kind
from reports.comparison import NO_VALUE, PLUS_MINUS, Cell, Comparison, Row
from reports.facts import (
    measured_sentence,
    probe_sentence,
    provenance_notes,
    reading_notes,
    spread_sentence,
)
from reports.load import AblationRuns
from reports.statistics import Place

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table
    from rich.text import Text

_STYLES = {Place.BEST: "bold green", Place.SECOND: "underline", Place.OTHER: ""}
_NAME_WIDTH = 18
"""Characters of a variant's name in a line."""
_PADDING = (0, 1, 0, 0)
_ANY_WIDTH = 10_000


def console_table(runs: AblationRuns, comparison: Comparison) -> RenderableType:
    """The question, the table, what the differences to the baseline are worth, and the notes."""
    from rich.console import Group
    from rich.text import Text

    notes = [*reading_notes(runs, comparison), *provenance_notes(runs, comparison)]
    return Group(
        Text(f"{runs.ablation} ({runs.scale}): {runs.question}", style="bold"),
        _Figures(comparison),
        *([_verdicts(runs, comparison)] if comparison.differences else []),
        Text("bold green: best; underlined: second best, judged as printed."),
        Text(spread_sentence(runs)),
        Text(measured_sentence(runs)),
        *([Text(probe_sentence(comparison))] if probe_sentence(comparison) else []),
        *(Text(f"! {note}", style="yellow") for note in notes),
    )


@dataclass(frozen=True)
class _Figures:
    """One table where the terminal is wide enough, else one for each kind of figure."""

    comparison: Comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = self.comparison.columns
        whole = self._table(list(range(len(columns))))
        if console.measure(whole, options=options.update(width=_ANY_WIDTH)).maximum <= (
            options.max_width
        ):
            yield whole
            return
        for kinds in (
            (Kind.QUALITY,),
            (Kind.SHADES,),
            (Kind.COST, Kind.MACHINE),
            (Kind.PROBE,),
        ):
            part = [index for index, column in enumerate(columns) if column.kind in kinds]
            if part:
                yield self._table(part)

    def _table(self, shown: list[int]) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, padding=_PADDING, pad_edge=False)
        table.add_column("variant", overflow="fold", max_width=_NAME_WIDTH)
        for index in shown:
            heading = _heading(self.comparison.columns[index])
            table.add_column(heading, justify="right", overflow="fold")
        for row in self.comparison.rows:
            table.add_row(*_texts(row, shown))
        floor = self.comparison.floor
        if floor and any(floor.cells[index].mean is not None for index in shown):
            table.add_section()
            table.add_row(*_texts(floor, shown))
        return table


def _heading(column: Column) -> str:
    """The arrow goes on the shorter line, so that columns stay as narrow as their figures."""
    lines = column.title_lines
    shortest = min(range(len(lines)), key=lambda index: len(lines[index]))
    lines[shortest] = f"{lines[shortest]} {column.arrow}".rstrip()
    return "\n".join(lines)


def _texts(row: Row, shown: list[int]) -> list[Text]:
    from rich.text import Text

    return [Text(row.label), *(_text(row.cells[index]) for index in shown)]


def _text(cell: Cell) -> Text:
    """The break, where a narrow terminal needs one, goes before the sign."""
    from rich.text import Text

    # As a part and not as the whole text, whose style would reach into the padding.
    return Text.assemble((cell.text(plus_minus=f" {PLUS_MINUS}\u00a0"), _STYLES[cell.place]))


def _verdicts(runs: AblationRuns, comparison: Comparison) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = Text(f"Differences to {runs.baseline}, paired by seed", style="bold")
    table = Table(
        box=box.SIMPLE_HEAD, padding=_PADDING, pad_edge=False, title=title, title_justify="left"
    )
    table.add_column("metric", overflow="fold")
    table.add_column("variant", overflow="fold", max_width=_NAME_WIDTH)
    table.add_column("difference", justify="right")
    table.add_column("verdict", overflow="fold")
    previous = None
    for row in comparison.differences:
        mean = row.difference.mean
        repeated = row.column is previous
        previous = row.column
        table.add_row(
            Text("" if repeated else row.column.title),
            Text(row.variant),
            Text(NO_VALUE if mean is None else row.column.signed(mean)),
            Text(row.verdict.value),
        )
    return table
