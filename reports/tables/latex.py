"""table.tex: a booktabs table that compiles with pdflatex, whatever characters are in its names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import compress

from reports.columns import Column
from reports.comparison import Comparison
from reports.facts import (
    attention_sentence,
    floor_sentence,
    measured_sentence,
    provenance_notes,
    reading_notes,
    spread_sentence,
)
from reports.load import AblationRuns
from reports.statistics import Place

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\u2013": "--",
    "\u2014": "---",
    "\u2018": "`",
    "\u2019": "'",
    "\u201c": "``",
    "\u201d": "''",
    "\u00b2": "$^2$",
    "\u00b0": r"$^\circ$",
    "\u2212": "$-$",
} | {sign: rf"\{sign}" for sign in "{}$&#%_"}
_SIGNS = (
    "\u00b1 pm \u00d7 times \u2191 uparrow \u2193 downarrow \u2192 to \u2190 leftarrow "
    "\u21d2 Rightarrow \u2264 leq \u2265 geq \u2260 neq \u2248 approx \u2243 simeq \u223c sim "
    "\u221e infty \u2208 in \u2207 nabla \u2202 partial \u2211 sum \u220f prod \u221a surd "
    "\u00b7 cdot \u22c5 cdot \u2299 odot \u2295 oplus \u2297 otimes \u2016 Vert \u00b5 mu"
)
"""Signs that are set as mathematics, each with its command."""
_ESCAPES |= {sign: rf"$\{command}$" for sign, command in re.findall(r"(\S) (\w+)", _SIGNS)}

_GREEK = re.compile("GREEK (SMALL|CAPITAL) LETTER (FINAL )?([A-Z]+)")
_CAPITALS = re.compile("Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega")
_LATIN_TWINS = {"Alpha": "A", "Eta": "H", "Rho": "P", "Chi": "X", "omicron": "o"}
"""Greek letters that LaTeX has no command for, where they are no Latin letter of their initial."""
_LAST_LATIN_LETTER = 0x17F


def latex_text(text: str) -> str:
    """Escape `text`; line breaks become spaces.

    Accented Latin letters stay, Greek letters and common signs are set as mathematics. Other
    characters lose their accents or become a question mark, since pdflatex stops at a character
    that its fonts lack.
    """
    return "".join(_latex_character(character) for character in " ".join(text.split()))


def _latex_character(character: str) -> str:
    if character.isascii() and not character.isprintable():
        return "?"
    known = _known(character)
    if known:
        return known
    if character.isalpha() and ord(character) <= _LAST_LATIN_LETTER:
        return character
    return "".join(_known(part) for part in unicodedata.normalize("NFKD", character)) or "?"


def _known(character: str) -> str:
    """A character as LaTeX sets it; empty where it has nothing for it."""
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isascii():
        return character
    greek = _GREEK.fullmatch(unicodedata.name(character, ""))
    if greek is None:
        return ""
    case, final, letter = greek.groups()
    letter = letter.lower().replace("lamda", "lambda")
    if case == "CAPITAL":
        letter = letter.capitalize()
    if letter in _LATIN_TWINS or (case == "CAPITAL" and not _CAPITALS.fullmatch(letter)):
        return _LATIN_TWINS.get(letter, letter[0])
    return rf"$\{'var' if final else ''}{letter}$"


_STYLES = {Place.BEST: r"\textbf{%s}", Place.SECOND: r"\underline{%s}", Place.OTHER: "%s"}


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
            *_tabular(comparison),
            "}",
            r"\end{table}",
            "",
        )
    )


def _tabular(comparison: Comparison) -> Iterator[str]:
    compact = [column.compact for column in comparison.columns]
    yield rf"\begin{{tabular}}{{@{{}}l{'r' * sum(compact)}@{{}}}}"
    yield r"\toprule"
    yield " & ".join(["", *map(_heading, compress(comparison.columns, compact))]) + r" \\"
    yield r"\midrule"
    for row in comparison.all_rows:
        if row is comparison.floor:
            yield r"\midrule"
        cells = compress(row.cells, compact)
        figures = (_STYLES[cell.place] % latex_text(cell.text()) for cell in cells)
        yield " & ".join([latex_text(row.label), *figures]) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}%"


def _heading(column: Column) -> str:
    """A line a part, hyphenated names in several, so that columns stay narrow."""
    lines = [part for line in column.title_lines for part in re.findall(r"[^-]+-?", line)]
    arrow = column.direction.arrow
    text = r"\\".join(map(latex_text, lines)) + (f"~{latex_text(arrow)}" if arrow else "")
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
        attention_sentence(runs),
        floor_sentence(comparison),
        *reading_notes(runs, comparison),
    )
    return " ".join(filter(None, (*map(latex_text, before), marks, *map(latex_text, after))))
