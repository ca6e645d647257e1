"""What a process is told to do for a search; can be written as JSON.

A search file's space, sampler and pruner as Optuna's.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from pydantic import TypeAdapter

from harness.config.trial_hash import trial_hash
from harness.data.datasets import data_content
from harness.machine.environment import ROOT
from harness.search import config as search_file
from harness.search.config import AnyPruner, AnySampler, PrunerConfig, SamplerConfig, Search
from harness.search.space import Choice, Dimension, FloatRange, IntRange
from harness.vocabulary.metrics import recorded_name
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


_PRUNER: TypeAdapter[PrunerConfig] = TypeAdapter(AnyPruner)

_SAMPLER: TypeAdapter[SamplerConfig] = TypeAdapter(AnySampler)


@dataclass(frozen=True)
class SearchSpec:
    """All that a worker needs to take trials of a study and run them."""

    name: str
    scale: str
    folder: str
    """Of the search: the study where it is a file, locks, logs and the outcome."""
    storage: str | None
    """URL of a database; None for a file in the folder."""
    trials: int
    """How many trials the study shall have in all."""
    definition: dict[str, Any]
    """All that makes two trials of a study comparable: space, objective, base configuration."""
    tree: dict[str, Any]
    """The base configuration, as `Search.tree`."""
    default: dict[str, Any] | None
    """The base configuration as a point, if it is one."""
    space: dict[str, str]
    """Dotted keys to Optuna's distributions as JSON."""
    metric: str
    """The key in a trial's metrics."""
    maximize: bool
    seeds: tuple[int, ...]
    pruner: dict[str, Any]
    sampler: dict[str, Any]
    validate_every: int
    longest: int
    """The most training steps that a point of the space may have."""
    runs_dir: str
    store_uri: str
    root: str
    threads: int
    side_by_side: int

    @property
    def study(self) -> str:
        """The study's name in its storage, which may hold those of other searches."""
        return f"{self.scale}/{self.name}"

    def distributions(self) -> Mapping[str, BaseDistribution]:
        """The space as Optuna knows it."""
        return {key: json_to_distribution(text) for key, text in self.space.items()}

    def pruner_config(self) -> PrunerConfig:
        return _PRUNER.validate_python(self.pruner)

    def sampler_config(self) -> SamplerConfig:
        return _SAMPLER.validate_python(self.sampler)

    @property
    def last_step(self) -> int:
        """The last step that a trial can report, over all its seeds."""
        return self.longest * len(self.seeds)

    @property
    def path(self) -> Path:
        return Path(self.folder)


def spec_of(
    search: Search, trials: int, storage: str | None, runs_dir: Path, store_uri: str
) -> SearchSpec:
    """What workers are told, bound to the very data, whose hash is part of the trials' hashes.

    Raises:
        UserError: the data are missing, or are not those of a content that was written down.
    """
    content = data_content(search.base.data)
    tree = {**search.tree, "data": {**search.tree["data"], "content": content}}
    data = search.base.data.model_copy(update={"content": content})
    base = search.base.model_copy(update={"data": data})
    objective, seeds = search.objective, list(search.objective.seeds)
    metric = recorded_name(objective.metric, search.base.evaluate.extractor)
    space = {key: distribution_to_json(it) for key, it in distributions(search.space).items()}
    default = search.default_point()
    return SearchSpec(
        name=search.name,
        scale=search.scale,
        folder=str(runs_dir / "searches" / search.scale / search.name),
        storage=storage,
        trials=trials,
        definition={
            "space": space,
            "objective": {"metric": metric, "seeds": seeds},
            "base configuration": trial_hash(base),
        },
        tree=tree,
        default=None if default is None else dict(default),
        space=space,
        metric=metric,
        maximize=objective.maximize,
        seeds=tuple(seeds),
        pruner=search.pruner.model_dump(),
        sampler=search.sampler.model_dump(),
        validate_every=search.base.train.validate_every,
        longest=search.longest,
        runs_dir=str(runs_dir),
        store_uri=store_uri,
        root=str(ROOT),
        threads=1,
        side_by_side=1,
    )
