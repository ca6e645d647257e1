"""table.tex: a booktabs table that compiles with pdflatex, whatever characters are in its names."""

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
    "\u2264": r"$\leq$",
    "\u2265": r"$\geq$",
    "\u2260": r"$\neq$",
    "\u2248": r"$\approx$",
    "\u2243": r"$\simeq$",
    "\u223c": r"$\sim$",
    "\u221e": r"$\infty$",
    "\u2192": r"$\to$",
    "\u2190": r"$\leftarrow$",
    "\u21d2": r"$\Rightarrow$",
    "\u2208": r"$\in$",
    "\u2207": r"$\nabla$",
    "\u2202": r"$\partial$",
    "\u2211": r"$\sum$",
    "\u220f": r"$\prod$",
    "\u221a": r"$\surd$",
    "\u00b7": r"$\cdot$",
    "\u22c5": r"$\cdot$",
    "\u2299": r"$\odot$",
    "\u2295": r"$\oplus$",
    "\u2297": r"$\otimes$",
    "\u2016": r"$\Vert$",
    "\u2212": r"$-$",
    "\u00b0": r"$^\circ$",
    "\u00b5": r"$\mu$",
}

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
