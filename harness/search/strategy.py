"""Which point a search tries next, and which trials it stops early: the settings, and Optuna's
objects that they stand for."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Annotated, Literal

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from pydantic import Field

from harness.config.sections import Section
from models.randomness import derive_seed


class Median(Section):
    """Stops what is worse than the median of the others at the same step."""

    name: Literal["median"] = "median"
    startup_trials: int = Field(
        default=5, ge=0, description="completed trials before any is pruned"
    )
    warmup_steps: int = Field(
        default=0, ge=0, description="steps of the first seed before any is pruned"
    )

    def build(self, *, validate_every: int, last_step: int) -> BasePruner:
        return MedianPruner(self.startup_trials, self.warmup_steps)


class Hyperband(Section):
    """Successive halving with several budgets (Li et al., 2018)."""

    name: Literal["hyperband"] = "hyperband"
    min_steps: int | None = Field(
        default=None, ge=1, description="the smallest budget; null takes train.validate_every"
    )
    reduction_factor: int = Field(default=3, ge=2)

    def build(self, *, validate_every: int, last_step: int) -> BasePruner:
        """`last_step` is the last one that a trial can report, over all its seeds."""
        smallest = min(self.min_steps or validate_every, last_step)
        return HyperbandPruner(smallest, last_step, self.reduction_factor)


class NoPruning(Section):
    """Trains everything to its end."""

    name: Literal["none"] = "none"

    def build(self, *, validate_every: int, last_step: int) -> BasePruner:
        return NopPruner()


class Sampler(Section):
    """How the points of a search are drawn."""

    seed: int = Field(default=0, ge=0, lt=2**31)

    def build(self, position: int) -> BaseSampler:
        """The sampler that draws the point of the trial of this number.

        Its seed depends on the search's and on the trial's number. With one seed for the whole
        search, each worker, and each repetition of the command, would begin with the same random
        points again.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return self._seeded(derive_seed("search", self.seed, position) % 2**32)

    @abstractmethod
    def _seeded(self, seed: int) -> BaseSampler: ...


class _Guided(Sampler):
    startup_trials: int = Field(
        default=10, ge=1, description="random trials before the first guided one"
    )


class Tpe(_Guided):
    """Tree-structured Parzen estimator (Bergstra et al., 2011)."""

    name: Literal["tpe"] = "tpe"

    def _seeded(self, seed: int) -> BaseSampler:
        return TPESampler(seed=seed, n_startup_trials=self.startup_trials)


class GaussianProcess(_Guided):
    """Expected improvement under a Gaussian process."""

    name: Literal["gp"] = "gp"

    def _seeded(self, seed: int) -> BaseSampler:
        return GPSampler(seed=seed, n_startup_trials=self.startup_trials)


class Independent(Sampler):
    """Independent draws."""

    name: Literal["random"] = "random"

    def _seeded(self, seed: int) -> BaseSampler:
        return RandomSampler(seed=seed)


class QuasiRandom(Sampler):
    """A scrambled Sobol sequence, which covers the space more evenly than independent draws."""

    name: Literal["qmc"] = "qmc"

    def _seeded(self, seed: int) -> BaseSampler:
        # One sequence for the whole search: Optuna counts in the study how far it is.
        return QMCSampler(
            seed=self.seed,
            scramble=True,
            independent_sampler=RandomSampler(seed=seed),
            warn_independent_sampling=False,
        )


AnyPruner = Annotated[Median | Hyperband | NoPruning, Field(discriminator="name")]
AnySampler = Annotated[
    Tpe | GaussianProcess | Independent | QuasiRandom, Field(discriminator="name")
]
