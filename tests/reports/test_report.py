from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from harness.vocabulary import names
from harness.vocabulary.metrics import BY_KEY
from models.errors import UserError
from reports.figures.curves import ROUTING_METRICS, load_curves
from reports.figures.samples import load_grids
from reports.load import load_ablation
from reports.report import write_report

FD = BY_KEY["fd"].recorded("efficientnet_lite0")
CURVE = [(0, 2.0), (50, 1.0), (100, 0.5)]


def grid(shade: int, channels: int = 1, classes: int = 3) -> dict[str, np.ndarray]:
    return {
        "images": np.full((classes, 2, 8, 8, channels), shade, dtype=np.uint8),
        "class_names": np.array([f"class {index}" for index in range(classes)]),
    }


def fill(stored: Any, *variants: str) -> None:
    for index, variant in enumerate(variants):
        for seed in (0, 1):
            metrics = {FD: 8.0 + index + 0.5 * seed, names.FLOPS: 1e9 + 1e8 * index}
            stored.trial(variant, seed, metrics, curve=CURVE, grid=grid(60 * index + seed))
    stored.finish(variants[0])


def test_a_report_is_written_from_mlflow_alone(stored: Any, tmp_path: Path) -> None:
    fill(stored, "full", "no_kernel", "50%|$x$")
    folder = tmp_path / "reports" / "here"
    report = write_report(stored.uri, stored.ablation, stored.scale, folder)
    assert sorted(path.name for path in report.files) == [
        "samples.png", "table.csv", "table.md", "table.tex", "tradeoff.png", "training_curves.png",
    ]  # fmt: skip
    assert sorted(folder.iterdir()) == sorted(report.files), "and no temporary file is left"
    rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert [(row["variant"], row["seed"], float(row[FD])) for row in rows if row["row"] == "seed"][
        :3
    ] == [("full", "0", 8.0), ("full", "1", 8.5), ("no_kernel", "0", 9.0)]
    assert "| no_kernel | *9.25 \u00b1 0.35* |" in (folder / "table.md").read_text()
    assert r"no\_kernel & \underline{9.25 $\pm$ 0.35}" in (folder / "table.tex").read_text()
    for path in report.files:
        if path.suffix == ".png":
            pixels = np.asarray(Image.open(path).convert("RGB"))
            assert pixels.shape[1] > 800
            assert pixels.min() < 100 < pixels.max(), f"{path.name} is not blank"
    console = Console(width=80)
    with console.capture() as capture:
        console.print(report.console)
    assert "no_kernel" in capture.get()


def test_what_has_no_data_is_not_drawn_and_an_old_picture_goes(stored: Any, tmp_path: Path) -> None:
    stored.trial("a", 0, {FD: 8.0})
    stored.finish("a")
    for name in ("samples.png", "training_curves.png", "attention_probe.png", "mine.txt"):
        (tmp_path / name).write_text("old")
    report = write_report(stored.uri, stored.ablation, stored.scale, tmp_path)
    assert [path.name for path in report.files] == ["table.csv", "table.tex", "table.md"]
    assert not list(tmp_path.glob("*.png"))
    assert (tmp_path / "mine.txt").exists()
    assert "samples.png lacks a: its run holds no grid.npz." in report.notes
    assert any("training_curves.png" in note for note in report.notes)


def test_a_refused_report_leaves_the_old_one_alone(stored: Any, tmp_path: Path) -> None:
    stored.trial("a", 0, {FD: 8.0}, identity={"steps": 1})
    stored.trial("b", 0, {FD: 8.0}, identity={"steps": 2})
    stored.finish("a")
    (tmp_path / "table.md").write_text("old")
    with pytest.raises(UserError, match="steps"):
        write_report(stored.uri, stored.ablation, stored.scale, tmp_path)
    assert (tmp_path / "table.md").read_text() == "old"


def test_grids_are_of_the_first_seed_that_all_variants_finished(stored: Any) -> None:
    stored.trial("a", 0, {FD: 1.0}, grid=grid(10))
    stored.trial("a", 1, {FD: 1.0}, grid=grid(11))
    stored.trial("b", 0, {FD: 1.0}, status="FAILED", grid=grid(20))
    stored.trial("b", 1, {FD: 1.0}, grid=grid(21))
    stored.list_trial("c", 0, None)
    stored.finish("a")
    grids, faults = load_grids(load_ablation(stored.uri, stored.ablation, stored.scale))
    assert [(one.variant, one.seed, one.images.max()) for one in grids] == [
        ("a", 1, 11),
        ("b", 1, 21),
    ]
    assert grids[0].class_names == ("class 0", "class 1", "class 2")
    assert faults == []


def test_grids_of_different_seeds_are_said_to_be_so(stored: Any) -> None:
    stored.trial("a", 0, {FD: 1.0}, grid=grid(10))
    stored.trial("b", 1, {FD: 1.0}, grid=grid(21))
    stored.finish("a")
    grids, faults = load_grids(load_ablation(stored.uri, stored.ablation, stored.scale))
    assert [(one.variant, one.seed) for one in grids] == [("a", 0), ("b", 1)]
    assert faults == ["shows different seeds, so cells do not share their noise"]


def test_grids_that_cannot_stand_beside_the_others_are_left_out(stored: Any) -> None:
    stored.trial("a", 0, {FD: 1.0}, grid=grid(10))
    stored.trial("none", 0, {FD: 1.0})
    stored.trial("classes", 0, {FD: 1.0}, grid=grid(10, classes=2))
    stored.trial("shape", 0, {FD: 1.0}, grid={"images": np.zeros(3), "class_names": np.zeros(3)})
    stored.trial("names", 0, {FD: 1.0}, grid={"images": grid(1)["images"]})
    broken = stored.trial("broken", 0, {FD: 1.0})
    stored.client.log_text(broken, "not an archive", names.ARTIFACT_GRID_IMAGES)
    evil = np.array([{"a": 1}], dtype=object)
    stored.trial("pickled", 0, {FD: 1.0}, grid={"images": evil, "class_names": evil})
    stored.finish("a")
    grids, faults = load_grids(load_ablation(stored.uri, stored.ablation, stored.scale))
    assert [found.variant for found in grids] == ["a"]
    assert [fault.removeprefix("lacks ").split(":")[0] for fault in faults] == [
        "none", "classes", "shape", "names", "broken", "pickled",
    ]  # fmt: skip


def test_curves_count_a_repeated_step_once_and_leave_infinity_out(stored: Any) -> None:
    run_id = stored.trial("a", 0, {}, curve=[(0, 3.0), (50, 2.0), (100, math.inf)])
    stored.client.log_metric(run_id, names.VALIDATION_LOSS, 1.5, timestamp=2**42, step=50)
    stored.trial("b", 0, {}, curve=CURVE, status="FAILED")
    stored.finish("a")
    curves = load_curves(
        load_ablation(stored.uri, stored.ablation, stored.scale), [names.VALIDATION_LOSS]
    )
    assert curves.drop(columns="metric").to_numpy().tolist() == [
        ["a", 0, 0, 3.0],
        ["a", 0, 50, 1.5],
    ]


def test_what_the_attention_does_is_drawn_where_it_was_logged(stored: Any, tmp_path: Path) -> None:
    for index, variant in enumerate(("routed", "plain")):
        for seed in (0, 1):
            metrics = {FD: 8.0, names.ATTENTION_ENTROPY: 0.5, names.TOKEN_SIMILARITY: 0.25}
            for layer in range(3):
                for metric in (names.ATTENTION_ENTROPY, names.TOKEN_SIMILARITY):
                    metrics[names.at_layer(metric, layer)] = 0.1 * (layer + index + seed)
            if variant == "routed":
                metrics |= dict.fromkeys(ROUTING_METRICS, 0.5 + 0.1 * seed)
            stored.trial(variant, seed, metrics)
    stored.finish("plain")
    report = write_report(stored.uri, stored.ablation, stored.scale, tmp_path)
    assert {"attention_probe.png", "routing_health.png"} <= {path.name for path in report.files}
    for name in ("attention_probe.png", "routing_health.png"):
        pixels = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        assert pixels.shape[1] > 1500
    text = (tmp_path / "table.md").read_text()
    assert "| attention entropy | token similarity |" in text
    assert "(routing_health.png)" in text
    assert "1 is uniform" in text
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert rows[0][names.TOKEN_SIMILARITY] == "0.25"
    assert not any("/" in column for column in rows[0])
