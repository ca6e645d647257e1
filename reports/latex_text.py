"""Any text as LaTeX that prints it and compiles with pdflatex and no further package."""

from __future__ import annotations

import unicodedata

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
