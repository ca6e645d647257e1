"""table.md: the table, its differences to the baseline, and how it was measured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from reports.comparison import NO_VALUE, Cell, Comparison, DifferenceRow, Row
from reports.facts import (
    FLOOR_SENTENCE,
    measured_sentence,
    probe_sentence,
    provenance,
    provenance_notes,
    reading_notes,
    spread_sentence,
)
from reports.load import AblationRuns
from reports.statistics import CONFIDENCE, Place

_MARKS = {Place.BEST: "**{}**", Place.SECOND: "*{}*", Place.OTHER: "{}"}
_LEGEND = "**Bold**: best; *italic*: second best, judged as printed; ties share a mark."
_RULE = (
    f"Differences are variant minus baseline, paired by seed, with a {CONFIDENCE:.0%} t-interval. "
    "Larger than seed noise: two or more common seeds and an interval that excludes 0. p is from "
    "the paired t-test; p (Holm) is corrected for the number of variants compared in the metric."
)


def markdown_table(runs: AblationRuns, comparison: Comparison, pictures: Mapping[str, str]) -> str:
    """The whole document. `pictures` are files beside it, by name, with what they show."""
    parts = [
        f"# {markdown_text(runs.ablation)} ({markdown_text(runs.scale)})",
        markdown_text(runs.question),
        _main_table(comparison),
        " ".join(
            sentence
            for sentence in (
                _LEGEND,
                markdown_text(spread_sentence(runs)),
                markdown_text(measured_sentence(runs)),
                FLOOR_SENTENCE if comparison.floor else "",
                probe_sentence(comparison),
            )
            if sentence
        ),
        _bullets([*reading_notes(runs, comparison), *provenance_notes(runs, comparison)]),
        *_differences(runs, comparison),
        "## How it was measured",
        _bullets([f"{fact.name}: {fact.value}" for fact in provenance(runs)]),
        *(f"![{caption}]({file})" for file, caption in pictures.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_text(text: str) -> str:
    """Escape what Markdown would read as markup; an underscore inside a word is none."""
    one_line = " ".join(text.split())
    escaped = re.sub(r"[\\`*\[\]<>|#~]", r"\\\g<0>", one_line)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", escaped)


def _main_table(comparison: Comparison) -> str:
    headings = ["variant", *(column.heading for column in comparison.columns)]
    rows = [*comparison.rows, *([comparison.floor] if comparison.floor else [])]
    alignment = "l" + "r" * len(comparison.columns)
    return _table(headings, alignment, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    return [markdown_text(row.label), *(_cell(cell) for cell in row.cells)]


def _cell(cell: Cell) -> str:
    return _MARKS[cell.place].format(cell.text())


def _differences(runs: AblationRuns, comparison: Comparison) -> list[str]:
    if not comparison.differences:
        return []
    headings = [
        "metric",
        "variant",
        "difference",
        "95 % interval",
        "p",
        "p (Holm)",
        "seeds",
        "verdict",
    ]
    return [
        f"## Differences to the baseline {markdown_text(runs.baseline)}",
        _table(headings, "llrrrrrl", [_difference(row) for row in comparison.differences]),
        _RULE,
    ]


def _difference(row: DifferenceRow) -> list[str]:
    difference = row.difference
    mean = NO_VALUE if difference.mean is None else row.column.signed(difference.mean)
    if difference.standard_error is not None:
        mean += f" (standard error {row.column.shown(difference.standard_error)})"
    interval = NO_VALUE
    if difference.interval is not None:
        low, high = difference.interval
        interval = f"{row.column.signed(low)} to {row.column.signed(high)}"
    return [
        row.column.title,
        markdown_text(row.variant),
        mean,
        interval,
        _probability(difference.p_value),
        _probability(row.adjusted_p),
        str(difference.count),
        row.verdict.value,
    ]


def _probability(p: float | None) -> str:
    if p is None:
        return NO_VALUE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _table(headings: Sequence[str], alignment: str, rows: Sequence[Sequence[str]]) -> str:
    rule = ["---:" if side == "r" else "---" for side in alignment]
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, rule, *rows))


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {markdown_text(line)}" for line in lines)
