from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.vocabulary import names
from harness.vocabulary.metrics import BY_KEY
from reports.report import csv_table

FD = BY_KEY["fd"].recorded("efficientnet_lite0")


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_columns_carry_the_metrics_keys(build_runs: Callable[..., Any]) -> None:
    figures = {"a": {0: {FD: 1.0, names.TRAINING_MEMORY: 2.0}}}
    header = csv_table(build_runs(figures)).splitlines()[0]
    assert header == "row,variant,seed,run_id,fd_efficientnet_lite0,training_memory_bytes"


def test_seed_rows_hold_every_bit_and_aggregates_follow(build_runs: Callable[..., Any]) -> None:
    values = np.random.default_rng(0).normal(10, 3, size=3).tolist()
    figures = {
        'a,"b"\n': {seed: {FD: value} for seed, value in enumerate(values)},
        "one": {5: {FD: 7.0}},
    }
    rows = read(csv_table(build_runs(figures)))
    assert [row["row"] for row in rows] == [*["seed"] * 3, "mean", "std", "seed", "mean", "std"]
    assert [row["variant"] for row in rows] == ['a,"b"\n'] * 5 + ["one"] * 3
    assert [row["seed"] for row in rows] == ["0", "1", "2", "", "", "5", "", ""]
    assert [row["run_id"] for row in rows[5:]] == ["run-one-5", "", ""]
    assert [float(row[FD]) for row in rows[:3]] == values
    assert float(rows[3][FD]) == pytest.approx(statistics.mean(values))
    assert float(rows[4][FD]) == pytest.approx(statistics.stdev(values))
    assert rows[7][FD] == "", "one seed has no deviation"


def test_a_missing_figure_is_an_empty_cell(build_runs: Callable[..., Any]) -> None:
    figures = {"a": {0: {FD: 1.0}, 1: {FD: math.nan}}, "b": {}}
    text = csv_table(build_runs(figures))
    assert text.splitlines()[1:] == [
        "seed,a,0,run-a-0,1.0",
        "seed,a,1,run-a-1,",
        "mean,a,,,1.0",
        "std,a,,,",
    ]


def test_metrics_of_parts_of_the_network_are_left_out(build_runs: Callable[..., Any]) -> None:
    figures = {
        names.ATTENTION_ENTROPY: 0.5,
        names.at_layer(names.ATTENTION_ENTROPY, 0): 0.4,
        names.at_timestep(names.ATTENTION_ENTROPY, 240.0): 0.6,
        names.GAMMA_MIN: 3.0,
    }
    header = csv_table(build_runs({"a": {0: figures}})).splitlines()[0]
    assert header == "row,variant,seed,run_id,attention_entropy"
