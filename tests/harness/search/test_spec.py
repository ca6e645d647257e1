from __future__ import annotations

import math
from typing import Any

import optuna
import pytest

from harness.search import config as search_file
from harness.search.space import Choice, FloatRange, IntRange
from harness.search.spec import build_pruner, build_sampler, distributions

SPACE = {
    "a": FloatRange(0.5, 2.0, log=False),
    "b": FloatRange(1e-4, 1e-1, log=True),
    "c": IntRange(4, 20, 4, log=False),
    "d": IntRange(1, 100, 1, log=True),
    "e": Choice((True, "x", None, 0.25)),
}


SAMPLERS = [
    search_file.TpeSampler(startup_trials=4),
    search_file.RandomSampler(),
    search_file.QuasiRandomSampler(),
    search_file.GaussianProcessSampler(startup_trials=4),
]


def draw(config: search_file.SamplerConfig, count: int) -> list[dict[str, Any]]:
    """As workers do: a new sampler for each trial."""
    study = optuna.create_study()
    for position in range(count):
        study.sampler = build_sampler(config, position)
        trial = study.ask(distributions(SPACE))
        study.tell(trial, trial.params["a"] + math.log(trial.params["b"]))
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("config", SAMPLERS, ids=lambda config: config.name)
def test_every_sampler_keeps_to_the_space_and_repeats_no_point(
    config: search_file.SamplerConfig,
) -> None:
    points = draw(config, 8)
    for point in points:
        assert list(point) == list(SPACE)
        for key, dimension in SPACE.items():
            assert dimension.holds(point[key])
            assert type(point[key]) is not float or math.isfinite(point[key])
    assert len({tuple(point.values()) for point in points}) == len(points)


def test_the_same_seed_draws_the_same_points_and_another_one_others() -> None:
    first = draw(search_file.RandomSampler(seed=1), 4)
    assert draw(search_file.RandomSampler(seed=1), 4) == first
    assert draw(search_file.RandomSampler(seed=2), 4) != first


def test_logarithmic_ranges_are_drawn_evenly_over_their_decades() -> None:
    values = [point["b"] for point in draw(search_file.RandomSampler(), 200)]
    below = sum(value < 1e-3 for value in values) / len(values)
    assert 0.2 < below < 0.47  # one of three decades; 4 standard deviations


def test_hyperband_spans_the_budget_of_all_seeds() -> None:
    pruner = build_pruner(search_file.HyperbandPruner(), validate_every=10, last_step=90)
    study = optuna.create_study(pruner=pruner, study_name="fixed")
    pruned = 0
    for index in range(24):
        trial = study.ask()
        for step in range(10, 91, 10):
            trial.report(float(index), step)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                pruned += 1
                break
        else:
            study.tell(trial, float(index))
    assert 0 < pruned < 24
