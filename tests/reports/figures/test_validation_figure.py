from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.vocabulary import names
from harness.vocabulary.metrics import BY_KEY
from reports.figures.curves import (
    ValidationCurves,
    draw_validation_samples,
    load_validation_samples,
)
from reports.load import load_ablation
from reports.report import write_report

FD, KD = BY_KEY["fd"].recorded("efficientnet_lite0"), BY_KEY["kd"].recorded("efficientnet_lite0")
IDENTITY = {"extractor": "efficientnet_lite0", "samples": 60}


def curves(*rows: tuple[str, int, str, int, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["variant", "seed", "metric", "step", "value"])


def store(stored: Any, variant: str, seed: int, samples: int, values: dict[int, float]) -> None:
    identity = json.dumps({**IDENTITY, "samples": samples})
    tags = {names.TAG_VALIDATION_IDENTITY: identity}
    run_id = stored.trial(variant, seed, {FD: 8.0}, tags=tags)
    for step, value in values.items():
        key = names.on_validation_samples(FD, samples)
        stored.client.log_metric(run_id, key, value, step=step)


def test_a_name_with_its_sample_count_can_be_read_back() -> None:
    for metric in ("fid", "kd_torch:resnet50.a1_in1k", FD):
        key = names.on_validation_samples(metric, 64)
        assert names.validation_metric_of(key) == (metric, 64)
        assert names.is_detail(key), "it has no column in a table"
    for other in (FD, names.VALIDATION_LOSS, "validation/fid", "validation/fid/many_samples"):
        assert names.validation_metric_of(other) is None


def test_lines_are_means_of_seeds_and_bands_their_range() -> None:
    rows = curves(
        ("a", 0, FD, 10, 8.0),
        ("a", 1, FD, 10, 6.0),
        ("a", 0, FD, 20, 5.0),
        ("a", 0, KD, 10, 0.002),
        ("b", 0, FD, 10, 3.0),
    )
    figure = draw_validation_samples(ValidationCurves(rows, 60, None), ("b", "without", "a"))
    assert figure.get_suptitle() == "60 validation samples"
    by_title = {axes.get_title(): axes for axes in figure.axes if axes.axison}
    assert list(by_title) == [
        "FD (EfficientNet-Lite0)\n(lower is better)",
        "KD x 1000\n(lower is better)",
    ]
    distance, kernel = by_title.values()
    assert [line.get_ydata().tolist() for line in distance.lines] == [[3.0], [7.0, 5.0]]
    heights = distance.collections[1].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (5.0, 8.0)
    assert [line.get_ydata().tolist() for line in kernel.lines] == [[pytest.approx(2.0)]]
    assert kernel.lines[0].get_color() == distance.lines[1].get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["b", "a"]


def test_the_curves_are_drawn_where_samples_were_measured(stored: Any, tmp_path: Path) -> None:
    store(stored, "a", 0, 60, {10: 9.0, 20: 7.0})
    store(stored, "a", 1, 60, {10: 8.0, 20: 6.0})
    stored.trial("b", 0, {FD: 8.0})
    stored.finish("a")
    loaded = load_validation_samples(load_ablation(stored.uri, stored.ablation, stored.scale))
    assert (loaded.samples, loaded.fault) == (60, None)
    assert loaded.curves.to_numpy().tolist() == [
        ["a", 0, FD, 10, 9.0],
        ["a", 0, FD, 20, 7.0],
        ["a", 1, FD, 10, 8.0],
        ["a", 1, FD, 20, 6.0],
    ]
    report = write_report(stored.uri, stored.ablation, stored.scale, tmp_path)
    assert tmp_path / "validation_samples.png" in report.files
    assert "(validation_samples.png)" in (tmp_path / "table.md").read_text()
    assert "60_samples" not in (tmp_path / "table.csv").read_text()


def test_samples_of_different_counts_share_no_axis(stored: Any, tmp_path: Path) -> None:
    store(stored, "a", 0, 60, {10: 9.0})
    store(stored, "b", 0, 50, {10: 9.0})
    stored.finish("a")
    report = write_report(stored.uri, stored.ablation, stored.scale, tmp_path)
    assert not (tmp_path / "validation_samples.png").exists()
    assert (
        "No validation_samples.png: the trials' validation samples differ in samples."
        in report.notes
    )


def test_figures_of_best_weights_say_so_and_share_no_column_with_others(
    stored: Any, tmp_path: Path
) -> None:
    identity = {**IDENTITY, "weights": "best by kd of 60 samples, every 10 steps"}
    stored.trial("a", 0, {FD: 8.0}, identity=identity)
    stored.finish("a")
    write_report(stored.uri, stored.ablation, stored.scale, tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "weights best by kd of 60 samples, every 10 steps" in text
    assert "of the weights that were best in validation" in text
    stored.trial("b", 0, {FD: 8.0}, identity=IDENTITY)
    stored.finish("a")
    with pytest.raises(Exception, match=r'weights: "best by kd .*\(a seed 0\); \(not recorded\)'):
        load_ablation(stored.uri, stored.ablation, stored.scale)
