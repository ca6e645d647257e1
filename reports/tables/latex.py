"""table.tex: a booktabs table that compiles as it stands.

Any text as LaTeX that prints it and compiles with pdflatex and no further package.
"""

from __future__ import annotations

import re
import unicodedata

from reports.columns import Column
from reports.comparison import FLOOR_LABEL, Comparison
from reports.facts import (
    FLOOR_SENTENCE,
    measured_sentence,
    provenance_notes,
    reading_notes,
    spread_sentence,
)
from reports.load import AblationRuns
from reports.statistics import Place

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\u00b1": r"$\pm$",
    "\u00b2": r"$^2$",
    "\u00d7": r"$\times$",
    "\u2013": "--",
    "\u2014": "---",
    "\u2018": "`",
    "\u2019": "'",
    "\u201c": "``",
    "\u201d": "''",
    "\u2191": r"$\uparrow$",
    "\u2193": r"$\downarrow$",
}

_LAST_LATIN_LETTER = 0x17F


def latex_text(text: str) -> str:
    """Escape `text`; line breaks become spaces.

    Accented Latin letters stay. Other characters lose their accents or become a question mark,
    since pdflatex stops at a character that its fonts lack.
    """
    return "".join(_latex_character(character) for character in " ".join(text.split()))


def _latex_character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isascii():
        return character if character.isprintable() else "?"
    if character.isalpha() and ord(character) <= _LAST_LATIN_LETTER:
        return character
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(_ESCAPES.get(part, part) for part in plain) or "?"


_STYLES = {
    Place.BEST: "textbf:--rwrap;",
    Place.SECOND: "underline:--rwrap;",
    Place.OTHER: "",
}


def latex_table(runs: AblationRuns, comparison: Comparison) -> str:
    """A `table` environment: caption, label, and a tabular that shrinks to the line if too wide.

    It needs the packages booktabs and graphicx. Columns that are not `compact` stand in table.csv
    and table.md alone.
    """
    label = re.sub(r"[^A-Za-z0-9]+", "-", f"{runs.ablation}-{runs.scale}").strip("-").lower()
    return "\n".join(
        (
            r"% needs \usepackage{booktabs} and \usepackage{graphicx}",
            *(f"% {' '.join(note.split())}" for note in provenance_notes(runs, comparison)),
            r"\begin{table}[t]",
            r"\centering",
            r"\setlength{\belowcaptionskip}{6pt}",
            rf"\caption{{{_caption(runs, comparison)}}}",
            rf"\label{{tab:{label}}}",
            r"\setlength{\tabcolsep}{4pt}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            _tabular(comparison) + "%",
            "}",
            r"\end{table}",
            "",
        )
    )


def _tabular(comparison: Comparison) -> str:
    import pandas as pd

    shown = [index for index, column in enumerate(comparison.columns) if column.compact]
    rows = [*comparison.rows, *([comparison.floor] if comparison.floor else [])]
    texts = pd.DataFrame(
        [
            [latex_text(row.label), *(latex_text(row.cells[index].text()) for index in shown)]
            for row in rows
        ]
    )
    styles = pd.DataFrame(
        [["", *(_STYLES[row.cells[index].place] for index in shown)] for row in rows]
    )
    headings = ["", *(_heading(comparison.columns[index]) for index in shown)]
    text: str = (
        texts.style.hide(axis="index")
        .format_index(lambda index: headings[int(str(index))], axis="columns")
        .apply(lambda _: styles, axis=None)
        .to_latex(hrules=True, column_format=f"@{{}}l{'r' * len(shown)}@{{}}")
    )
    if comparison.floor:
        floor = text.rindex(latex_text(FLOOR_LABEL))
        text = f"{text[:floor]}\\midrule\n{text[floor:]}"
    return text.rstrip("\n")


def _heading(column: Column) -> str:
    """A line a part, hyphenated names in several, so that columns stay narrow."""
    lines = [part for line in column.title_lines for part in re.findall(r"[^-]+-?", line)]
    arrow = f"~{latex_text(column.arrow)}" if column.arrow else ""
    text = r"\\".join(map(latex_text, lines)) + arrow
    return rf"\begin{{tabular}}[b]{{@{{}}r@{{}}}}{text}\end{{tabular}}" if len(lines) > 1 else text


def _caption(runs: AblationRuns, comparison: Comparison) -> str:
    before = (runs.question, f"Ablation {runs.ablation}, scale {runs.scale}.")
    marks = (
        r"\textbf{Bold} marks the best and \underline{underlining} the second-best figure of a "
        "column, judged as printed; ties share a mark."
    )
    after = (
        spread_sentence(runs),
        measured_sentence(runs),
        FLOOR_SENTENCE if comparison.floor else "",
        *reading_notes(runs, comparison),
    )
    sentences = (*map(latex_text, before), marks, *map(latex_text, after))
    return " ".join(sentence for sentence in sentences if sentence)
