"""A search file's space, sampler and pruner as Optuna's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import assert_never

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler

from harness.config import search_file
from harness.search.space import Choice, Dimension, FloatRange, IntRange
from models.randomness import derive_seed


def distributions(space: Mapping[str, Dimension]) -> dict[str, BaseDistribution]:
    """Optuna's description of a space."""
    return {key: _distribution(dimension) for key, dimension in space.items()}


def build_sampler(config: search_file.SamplerConfig, position: int) -> BaseSampler:
    """The sampler that draws one trial's point.

    Its seed depends on the search's and on the trial's number. With one seed for the whole search,
    each worker, and each repetition of the command, would begin with the same random points again.

    Args:
        config: kind and seed.
        position: the trial's number.
    """
    seed = derive_seed("search", config.seed, position) % 2**32
    match config:
        case search_file.TpeSampler():
            return TPESampler(seed=seed, n_startup_trials=config.startup_trials)
        case search_file.RandomSampler():
            return RandomSampler(seed=seed)
        case search_file.QuasiRandomSampler():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                # One sequence for the whole search: Optuna counts in the study how far it is.
                return QMCSampler(
                    seed=config.seed,
                    scramble=True,
                    independent_sampler=RandomSampler(seed=seed),
                    warn_independent_sampling=False,
                )
        case search_file.GaussianProcessSampler():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return GPSampler(seed=seed, n_startup_trials=config.startup_trials)
        case _:
            assert_never(config)


def build_pruner(
    config: search_file.PrunerConfig, *, validate_every: int, last_step: int
) -> BasePruner:
    """The pruner.

    Args:
        config: kind and settings.
        validate_every: steps between two validation losses.
        last_step: the last one that a trial can report, over all its seeds.
    """
    match config:
        case search_file.MedianPruner():
            return MedianPruner(config.startup_trials, config.warmup_steps)
        case search_file.HyperbandPruner():
            smallest = config.min_steps or validate_every
            return HyperbandPruner(min(smallest, last_step), last_step, config.reduction_factor)
        case search_file.NoPruner():
            return NopPruner()
        case _:
            assert_never(config)


def _distribution(dimension: Dimension) -> BaseDistribution:
    match dimension:
        case FloatRange(low, high, log):
            return FloatDistribution(low, high, log=log)
        case IntRange(low, high, step, log):
            return IntDistribution(low, high, log=log, step=step)
        case Choice(values):
            return CategoricalDistribution(values)
        case _:
            assert_never(dimension)
