"""Panels side by side, a line a variant through the mean of its seeds, with a band.

Also what all figures of variants share: style, colours, and a legend that takes any name literally.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "font.size": 8,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}
PAGE_WIDTH = 6.5
"""Inches of a page's text."""
COLORS = sns.color_palette("colorblind")
"""Ten that the colour-blind tell apart."""
_DASHES = ("-", "--", ":", "-.")
"""So that lines differ in print, and where colours repeat."""
_FEW_POINTS = 12
"""Up to this many points of a line are marked; a single one would be invisible otherwise."""
_LINE_HEIGHT = 0.17
_CHARACTERS_AN_INCH = 75 / 4.5
"""How many characters of a legend fit an inch."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes and its lines."""

    title: str
    lines: pd.DataFrame
    """Columns `variant`, `x`, `mean` (the line), `low` and `high` (the band), sorted by `x`; a
    panel without rows is left blank."""


def over_seeds(rows: pd.DataFrame, x: str) -> pd.DataFrame:
    """Mean and range over the seeds, as `Panel.lines`.

    `rows` has the columns `variant`, `value` and the one that `x` names, a row a seed.
    """
    seeds = rows.groupby(["variant", x])["value"].agg(["mean", "min", "max"]).reset_index()
    return seeds.set_axis(["variant", "x", "mean", "low", "high"], axis="columns")


def draw_panels(
    panels: Sequence[Panel],
    variants: Sequence[str],
    x_label: str,
    size: tuple[float, float] = (PAGE_WIDTH / 3, 1.9),
) -> Figure | None:
    """Panels in rows as wide as a page, with one legend below; None where no panel has a line.

    Horizontal axes count in whole numbers; variants without a line are left out of the legend.
    `size` is a panel's, in inches.
    """
    present = {name for panel in panels for name in panel.lines["variant"]}
    drawn = [variant for variant in variants if variant in present]
    if not drawn:
        return None
    width, height = size
    columns = min(len(panels), round(PAGE_WIDTH / width))
    rows = -(-len(panels) // columns)
    styles = list(zip(drawn, itertools.cycle(COLORS), itertools.cycle(_DASHES), strict=False))
    handles: dict[str, Any] = {}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes, panel in itertools.zip_longest(grid, panels):
            if panel is None or panel.lines.empty:
                axes.set_axis_off()
                continue
            axes.set(title=panel.title, xlabel=x_label)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            for variant, color, dashes in styles:
                line = panel.lines[panel.lines["variant"] == variant]
                if line.empty:
                    continue
                marker = "o" if len(line) <= _FEW_POINTS else ""
                (handles[variant],) = axes.plot(
                    line["x"], line["mean"], color=color, ls=dashes, marker=marker, markersize=3
                )
                axes.fill_between(
                    line["x"], line["low"], line["high"], color=color, alpha=0.18, linewidth=0
                )
        add_legend_below(figure, [handles[variant] for variant in drawn], drawn)
    return figure


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
    numbers = [str(index) for index in range(len(labels))]
    legend = figure.legend(handles, numbers, loc="outside lower center", ncols=columns)
    for text, label in zip(legend.get_texts(), wrapped, strict=True):
        text.set_parse_math(False)
        text.set_text(label)
