"""Resolve what a command names: an ablation to its trials (every variant with every seed), a
cluster, or the data set of a scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath

from pydantic import BaseModel, Field

from harness.config.ablation_file import AblationFile, read_ablation_file
from harness.config.catalogue import find_file
from harness.config.cluster import ClusterConfig
from harness.config.layers import load_layers, overrides_layer
from harness.config.mistakes import COMMAND_LINE, ConfigError, Mistake
from harness.config.schema import TrialConfig
from harness.config.sections import DataConfig
from harness.config.trial_hash import training_hash, trial_hash
from harness.config.validation import check_keys, validate
from harness.config.yaml_source import Node

CLUSTER = "cluster"
SEED = "seed"


def trial_overrides(overrides: Sequence[str], mistakes: list[Mistake]) -> Node:
    """The overrides as a layer, without those of `cluster.`, which are left to `load_cluster`."""
    layer = overrides_layer(overrides, mistakes)
    return Node({k: node for k, node in layer.entries().items() if k != CLUSTER}, layer.origin)


def refuse_seeds(layers: Sequence[Node], expected: str, mistakes: list[Mistake]) -> None:
    """A layer holds for all trials, and each trial has its own seed.

    Args:
        layers: to be looked through.
        expected: where seeds are given instead, for the message.
        mistakes: where it goes.
    """
    for layer in layers:
        seed = layer.find((SEED,))
        if seed is not None:
            problem = "each trial has its own seed"
            mistakes.append(Mistake(seed.origin, SEED, problem, expected))


@dataclass(frozen=True)
class Trial:
    """One variant with one seed."""

    scale: str
    variant: str
    config: TrialConfig

    @cached_property
    def hash(self) -> str:
        """The hash of all that can change its figures."""
        return trial_hash(self.config)

    @cached_property
    def training_hash(self) -> str:
        """The hash of all that its weights depend on."""
        return training_hash(self.config)

    @property
    def seed(self) -> int:
        """The seed of all its random streams."""
        return self.config.seed

    @property
    def folder(self) -> PurePath:
        """Where it lives below the runs folder: `<scale>/<variant>/seed<k>-<hash>`."""
        return PurePath(self.scale, self.variant, f"seed{self.seed}-{self.hash}")


@dataclass(frozen=True)
class Ablation:
    """A question, the variants that answer it, and their trials."""

    name: str
    question: str
    baseline: str
    """The variant that the others are compared with."""
    scale: str
    variants: tuple[str, ...]
    """In the order of the file, which is that of the tables."""
    trials: tuple[Trial, ...]
    """Seed by seed, so that a first comparison is complete as early as possible."""

    def with_content(self, content_of: Callable[[DataConfig], str | None]) -> Ablation:
        """This ablation with `data.content`, which is part of the trials' hashes, filled in."""
        trials = []
        for trial in self.trials:
            data = trial.config.data
            bound = data.model_copy(update={"content": content_of(data)})
            trials.append(replace(trial, config=trial.config.model_copy(update={"data": bound})))
        return replace(self, trials=tuple(trials))


class _WithCluster(BaseModel):
    """The keys as the command line names them."""

    cluster: ClusterConfig = Field(discriminator="launcher")


def load_ablation(
    name: str,
    *,
    scale: str,
    seeds: int | None,
    overrides: Sequence[str],
    experiments_dir: Path,
) -> Ablation:
    """Resolve an ablation at a scale.

    Weakest first: what the scale extends, the scale, the ablation's settings, the variant's
    differences, the overrides.

    Args:
        name: of a file in `experiments/ablation`.
        scale: of a file in `experiments/scale`.
        seeds: run seeds 0 to `seeds` - 1 instead of the file's own.
        overrides: `train.steps=200` and the like, for every variant. Those of `cluster.` are left
            to `load_cluster`.
        experiments_dir: the folder of YAML files.

    Raises:
        ConfigError: with all mistakes in files and overrides.
    """
    mistakes: list[Mistake] = []
    layer = trial_overrides(overrides, mistakes)
    if seeds is not None and seeds < 1:
        mistakes.append(Mistake(COMMAND_LINE, "seeds", f"got {seeds}", "a whole number >= 1"))
    path = find_file("ablation", name, experiments_dir, mistakes)
    scale_path = find_file("scale", scale, experiments_dir, mistakes)
    file = None if path is None else read_ablation_file(path, mistakes)
    below = None if scale_path is None else load_layers(scale_path, experiments_dir, mistakes)
    if file is None or below is None:
        check_keys(TrialConfig, layer, mistakes)
        raise ConfigError(mistakes)
    shared = [*below[1:], file.settings, *file.variants.values(), layer]
    refuse_seeds(shared, "the ablation's `seeds:` or --seeds", mistakes)
    configs = {
        variant: validate(TrialConfig, [*below, file.settings, differences, layer], mistakes)
        for variant, differences in file.variants.items()
    }
    resolved = {variant: config for variant, config in configs.items() if config is not None}
    if not mistakes:
        _refuse_twins(file, resolved, mistakes)
    if mistakes:
        raise ConfigError(mistakes)
    trials = tuple(
        Trial(scale, variant, config.model_copy(update={SEED: seed}))
        for seed in (file.seeds if seeds is None else range(seeds))
        for variant, config in resolved.items()
    )
    return Ablation(name, file.question, file.baseline, scale, tuple(resolved), trials)


def load_cluster(name: str, overrides: Sequence[str], experiments_dir: Path) -> ClusterConfig:
    """Read where trials run.

    Args:
        name: of a file in `experiments/cluster`.
        overrides: all of the command line's; only those of `cluster.`, such as
            `cluster.workers=2`, are read.
        experiments_dir: the folder of YAML files.

    Raises:
        ConfigError: with all mistakes in the file and those overrides.
    """
    mistakes: list[Mistake] = []
    path = find_file("cluster", name, experiments_dir, mistakes)
    below = None if path is None else load_layers(path, experiments_dir, mistakes)
    config = None
    if below is not None:
        # Malformed overrides are told by `load_ablation`, which sees them all.
        mine = overrides_layer(overrides, []).find((CLUSTER,))
        sections = [*below] if mine is None else [*below, mine]
        layers = [Node({CLUSTER: section}, section.origin) for section in sections]
        config = validate(_WithCluster, layers, mistakes)
    if config is None or mistakes:
        raise ConfigError(map(_in_its_file, mistakes))
    return config.cluster


def _refuse_twins(
    file: AblationFile, configs: dict[str, TrialConfig], mistakes: list[Mistake]
) -> None:
    first_with: dict[str, str] = {}
    for variant, config in configs.items():
        twin = first_with.setdefault(trial_hash(config), variant)
        if twin != variant:
            problem = f"is the same configuration as variant {twin}"
            key = f"variants.{variant}"
            mistakes.append(Mistake(file.variants[variant].origin, key, problem, "a difference"))


def _in_its_file(mistake: Mistake) -> Mistake:
    """In a cluster's file its keys do not stand below `cluster.`."""
    if mistake.origin == COMMAND_LINE:
        return mistake
    prefix = f"{CLUSTER}."
    nearest = None if mistake.nearest is None else mistake.nearest.removeprefix(prefix)
    return replace(mistake, key=mistake.key.removeprefix(prefix), nearest=nearest)


class _WithData(BaseModel):
    """The keys as the command line names them."""

    data: DataConfig


def load_data_config(scale: str, overrides: Sequence[str], experiments_dir: Path) -> DataConfig:
    """Read which images a scale trains on.

    Args:
        scale: of a file in `experiments/scale`.
        overrides: `data.path=...` and the like.
        experiments_dir: the folder of YAML files.

    Raises:
        ConfigError: with all mistakes in the file and the overrides.
    """
    mistakes: list[Mistake] = []
    layer = overrides_layer(overrides, mistakes)
    check_keys(_WithData, layer, mistakes)
    path = find_file("scale", scale, experiments_dir, mistakes)
    below = None if path is None else load_layers(path, experiments_dir, mistakes)
    config = None if below is None else validate(_WithData, [*below, layer], mistakes)
    if config is None or mistakes:
        raise ConfigError(mistakes)
    return config.data
