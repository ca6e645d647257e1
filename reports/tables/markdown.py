"""table.md: the table, its differences to the baseline, and how it was measured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from reports.comparison import NO_VALUE, Comparison, DifferenceRow
from reports.facts import (
    floor_sentence,
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
_COLUMNS = ("metric", "variant", "difference", "95 % interval", "p", "p (Holm)", "seeds", "verdict")


def markdown_table(runs: AblationRuns, comparison: Comparison, pictures: Mapping[str, str]) -> str:
    """The whole document. `pictures` are files beside it, by name, with what they show."""
    headings = ["variant", *(column.heading for column in comparison.columns)]
    figures = [
        [markdown_text(row.label), *(_MARKS[cell.place].format(cell.text()) for cell in row.cells)]
        for row in comparison.all_rows
    ]
    sentences = (
        _LEGEND,
        markdown_text(spread_sentence(runs)),
        markdown_text(measured_sentence(runs)),
        floor_sentence(comparison),
        probe_sentence(comparison),
    )
    parts = [
        f"# {markdown_text(runs.ablation)} ({markdown_text(runs.scale)})",
        markdown_text(runs.question),
        _table(headings, "l" + "r" * len(comparison.columns), figures),
        " ".join(filter(None, sentences)),
        _bullets([*reading_notes(runs, comparison), *provenance_notes(runs, comparison)]),
    ]
    if comparison.differences:
        differences = [_difference(row) for row in comparison.differences]
        parts += [
            f"## Differences to the baseline {markdown_text(runs.baseline)}",
            _table(_COLUMNS, "llrrrrrl", differences),
            _RULE,
        ]
    parts += [
        "## How it was measured",
        _bullets([f"{name}: {value}" for name, value in provenance(runs).items()]),
        *(f"![{caption}]({file})" for file, caption in pictures.items()),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def markdown_text(text: str) -> str:
    """Escape what Markdown would read as markup; an underscore inside a word is none."""
    one_line = " ".join(text.split())
    escaped = re.sub(r"[\\`*\[\]<>|#~]", r"\\\g<0>", one_line)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", escaped)


def _difference(row: DifferenceRow) -> list[str]:
    difference, column = row.difference, row.column
    mean = NO_VALUE if difference.mean is None else column.signed(difference.mean)
    if difference.standard_error is not None:
        mean += f" (standard error {column.shown(difference.standard_error)})"
    interval = " to ".join(map(column.signed, difference.interval or ())) or NO_VALUE
    probabilities = map(_probability, (difference.p_value, row.adjusted_p))
    variant = markdown_text(row.variant)
    seeds = str(difference.count)
    return [column.title, variant, mean, interval, *probabilities, seeds, row.verdict.value]


def _probability(p: float | None) -> str:
    if p is None:
        return NO_VALUE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _table(headings: Sequence[str], alignment: str, rows: Sequence[Sequence[str]]) -> str:
    rule = ["---:" if side == "r" else "---" for side in alignment]
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, rule, *rows))


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {markdown_text(line)}" for line in lines)
