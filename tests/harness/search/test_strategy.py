from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from harness.search import strategy
from harness.search.space import holds

SPACE = {
    "a": FloatDistribution(0.5, 2.0),
    "b": FloatDistribution(1e-4, 1e-1, log=True),
    "c": IntDistribution(4, 20, step=4),
    "d": IntDistribution(1, 100, log=True),
    "e": CategoricalDistribution((True, "x", None, 0.25)),
}


SAMPLERS = [
    strategy.Tpe(startup_trials=4),
    strategy.Independent(),
    strategy.QuasiRandom(),
    strategy.GaussianProcess(startup_trials=4),
]


def draw(config: strategy.Sampler, count: int) -> list[dict[str, Any]]:
    """As workers do: a new sampler for each trial."""
    study = optuna.create_study()
    for position in range(count):
        study.sampler = config.build(position)
        trial = study.ask(dict(SPACE))
        study.tell(trial, trial.params["a"] + math.log(trial.params["b"]))
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("config", SAMPLERS, ids=lambda config: config.name)
def test_every_sampler_keeps_to_the_space_and_repeats_no_point(
    config: strategy.Sampler,
) -> None:
    points = draw(config, 8)
    for point in points:
        assert list(point) == list(SPACE)
        for key, dimension in SPACE.items():
            assert holds(dimension, point[key])
            assert type(point[key]) is not float or math.isfinite(point[key])
    assert len({tuple(point.values()) for point in points}) == len(points)


def test_the_same_seed_draws_the_same_points_and_another_one_others() -> None:
    first = draw(strategy.Independent(seed=1), 4)
    assert draw(strategy.Independent(seed=1), 4) == first
    assert draw(strategy.Independent(seed=2), 4) != first


def test_logarithmic_ranges_are_drawn_evenly_over_their_decades() -> None:
    values = [point["b"] for point in draw(strategy.Independent(), 200)]
    below = sum(value < 1e-3 for value in values) / len(values)
    assert 0.2 < below < 0.47  # one of three decades; 4 standard deviations


def test_hyperband_spans_the_budget_of_all_seeds() -> None:
    pruner = strategy.Hyperband().build(validate_every=10, last_step=90)
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
