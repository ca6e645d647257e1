"""What is written about studies whose trials were told, not trained."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from PIL import Image

from harness.config.load import load_ablation
from harness.config.serialisation import from_yaml_file
from harness.search.config import SearchSpec
from harness.search.outcome import (
    HISTORY,
    IMPORTANCES,
    SLICE,
    failures,
    markdown_table,
    summary,
    write_figures,
    write_outcome,
)
from harness.search.study import REASON, SCORES, prepare_study
from tests.harness.search.conftest import Made

Make = Callable[..., Made]


def told(spec: SearchSpec, count: int) -> optuna.Study:
    """Trials whose value is their lambda: each third one is pruned, each fifth one fails."""
    study = prepare_study(spec)
    study.sampler = optuna.samplers.RandomSampler(seed=1)
    for index in range(count):
        trial = study.ask(dict(spec.distributions()))
        value = trial.params["attention.lambda_init"]
        trial.set_user_attr(SCORES, json.dumps({0: value - 0.001, 1: value + 0.001}))
        if index % 3 == 2:
            study.tell(trial, state=TrialState.PRUNED)
        elif index % 5 == 4:
            trial.set_user_attr(REASON, "the loss is nan")
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, value)
    return study


def test_the_best_configuration_is_a_file_and_an_ablation_that_loads(
    make: Make, tmp_path: Path
) -> None:
    made = make()
    study = told(made.spec, 9)
    files = write_outcome(made.spec, study.get_trials())
    assert [file.name for file in files] == ["trials.csv", "table.md", "best.yaml", "s_best.yaml"]
    best = study.best_trial.params
    config = from_yaml_file(made.spec.path / "best.yaml")
    assert config.model_dump()["attention"]["lambda_init"] == best["attention.lambda_init"]
    assert config.model.depth == best["model.depth"]
    shutil.copy(files[-1], tmp_path / "experiments" / "ablation")
    ablation = load_ablation(
        "s_best",
        scale="smoke",
        seeds=None,
        overrides=[],
        experiments_dir=tmp_path / "experiments",
    )
    assert ablation.variants == ("default", "best")
    assert {trial.seed for trial in ablation.trials} == {2, 3}  # not those it was chosen by
    found = {trial.variant: trial.config for trial in ablation.trials if trial.seed == 2}
    assert found["best"] == config.model_copy(update={"seed": 2})
    assert found["default"] == made.search.base.model_copy(update={"seed": 2})


def test_a_base_that_nothing_beats_is_compared_with_nothing(make: Make, tmp_path: Path) -> None:
    made = make()
    study = told(made.spec, 1)
    (*_, ablation) = write_outcome(made.spec, study.get_trials())
    shutil.copy(ablation, tmp_path / "experiments" / "ablation")
    loaded = load_ablation(
        "s_best", scale="smoke", seeds=None, overrides=[], experiments_dir=tmp_path / "experiments"
    )
    assert loaded.variants == ("default",)


def test_tables_hold_every_trial_and_the_best_first(make: Make) -> None:
    made = make()
    trials = told(made.spec, 16).get_trials()
    write_outcome(made.spec, trials)
    with (made.spec.path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in rows] == list(range(16))
    complete = [row for row in rows if row["state"] == "COMPLETE"]
    for row in complete:
        assert float(row["validation_loss"]) == float(row["attention.lambda_init"])
        seeds = [float(row[f"validation_loss_seed{seed}"]) for seed in (0, 1)]
        assert sum(seeds) / 2 == pytest.approx(float(row["validation_loss"]))
    assert all(row["validation_loss"] == "" for row in rows if row["state"] != "COMPLETE")
    lines = markdown_table(made.spec, trials).splitlines()
    means = [float(line.split("|")[2]) for line in lines[2:]]
    assert means == sorted(means)
    assert means[0] == pytest.approx(min(float(row["validation_loss"]) for row in complete), 1e-4)
    assert sum("(base)" in line for line in lines) == 1
    assert summary(trials) == "16 trials: 9 complete, 5 pruned, 2 failed"
    assert failures(trials) == ["2 failed: the loss is nan"]


def test_figures_are_drawn_and_importances_only_where_they_mean_something(
    make: Make, tmp_path: Path
) -> None:
    notices: list[str] = []
    spec = make().spec
    few = write_figures(told(spec, 4), spec.metric, spec.path, notices.append)
    assert [file.name for file in few] == [HISTORY, SLICE]
    assert "3 trials are complete, and fewer than 10" in notices[0]
    many = write_figures(told(spec, 18), spec.metric, spec.path, notices.append)
    assert [file.name for file in many] == [HISTORY, SLICE, IMPORTANCES]
    assert len(notices) == 1
    for file in many:
        with Image.open(file) as image:
            darkest, lightest = image.convert("L").getextrema()
            assert darkest < lightest


def test_a_study_without_a_completed_trial_has_no_figures(make: Make) -> None:
    spec = make().spec
    assert write_figures(prepare_study(spec), spec.metric, spec.path, print) == []
