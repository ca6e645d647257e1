from __future__ import annotations

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest

from reports.figures.curves import draw_training_curves

HOSTILE = ("$x$", "_hidden", "a name that is far too long to stand beside others " * 2)


def curves(variants: tuple[str, ...], seeds: int, scale: float = 1.0) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        [
            (variant, seed, step, scale + random.uniform(0, 0.3))
            for variant in variants
            for seed in range(seeds)
            for step in (0, 50, 100)
        ],
        columns=["variant", "seed", "step", "value"],
    )


def test_the_line_is_the_mean_and_the_band_the_range_of_the_seeds() -> None:
    frame = curves(("b", "a"), seeds=3)
    (axes,) = draw_training_curves(frame, ("b", "missing", "a")).axes
    for variant, line, band in zip(("b", "a"), axes.lines, axes.collections, strict=False):
        by_step = frame[frame["variant"] == variant].groupby("step")["value"]
        assert line.get_ydata() == pytest.approx(by_step.mean().to_numpy())
        assert line.get_xdata().tolist() == [0, 50, 100]
        heights = band.get_paths()[0].vertices[:, 1]
        assert heights.max() == pytest.approx(by_step.max().max())
        assert heights.min() == pytest.approx(by_step.min().min())
        assert matplotlib.colors.same_color(band.get_facecolor()[0][:3], line.get_color())
    assert "range of seeds" in axes.get_ylabel()


def test_one_seed_claims_no_range() -> None:
    (axes,) = draw_training_curves(curves(("a",), seeds=1), ("a",)).axes
    assert axes.get_ylabel() == "validation loss"


def test_only_a_wide_range_gets_a_logarithmic_axis() -> None:
    flat, steep = curves(("a",), 1), curves(("a",), 1)
    steep.loc[0, "value"] = 20.0
    assert draw_training_curves(flat, ("a",)).axes[0].get_yscale() == "linear"
    assert draw_training_curves(steep, ("a",)).axes[0].get_yscale() == "log"


def test_the_legend_holds_literal_names_in_order() -> None:
    figure = draw_training_curves(curves(HOSTILE, seeds=2), HOSTILE)
    (legend,) = figure.legends
    assert [" ".join(text.get_text().split()) for text in legend.get_texts()] == [
        name.strip() for name in HOSTILE
    ]
    assert not any(text.get_parse_math() for text in legend.get_texts())
    assert figure.axes[0].get_legend() is None
    figure.canvas.draw()
    assert legend.get_window_extent().width < figure.bbox.width
