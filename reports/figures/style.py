"""What the line figures share: style, colours, and a legend that takes any name literally."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 8,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}
BAND: dict[str, Any] = {"alpha": 0.18, "linewidth": 0}
Dashes = Literal["-", "--", ":", "-."]
_DASHES: tuple[Dashes, ...] = ("-", "--", ":", "-.")
_LINE_HEIGHT = 0.17
_CHARACTERS_AN_INCH = 75 / 4.5
"""Of a legend, side by side."""


def colors(count: int) -> list[tuple[float, float, float]]:
    """Colours that the colour-blind tell apart; from ten on they repeat."""
    import seaborn as sns

    return list(sns.color_palette("colorblind", count))


def line_style(index: int) -> Dashes:
    """So that lines differ in print, and where colours repeat."""
    return _DASHES[index % len(_DASHES)]


def add_legend_below(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """A legend below the axes, for which the figure grows. `handles` are lines or error bars."""
    width, height = figure.get_size_inches()
    characters = int(width * _CHARACTERS_AN_INCH)
    wrapped = [textwrap.fill(label, min(characters // 2, 60)) for label in labels]
    widest = max(len(line) for label in wrapped for line in label.split("\n"))
    columns = min(len(labels), max(1, characters // (widest + 7)))
    tallest = max(label.count("\n") + 1 for label in wrapped)
    lines = tallest * -(-len(labels) // columns)
    figure.set_size_inches(width, height + lines * _LINE_HEIGHT)
    # Numbers stand for names, since matplotlib reads "$" and a leading "_" in labels as commands.
    legend = figure.legend(
        handles,
        [str(index) for index in range(len(labels))],
        loc="outside lower center",
        ncols=columns,
    )
    for text, label in zip(legend.get_texts(), wrapped, strict=True):
        text.set_parse_math(False)
        text.set_text(label)
