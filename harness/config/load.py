"""Resolve what a command names: an ablation to its trials (every variant with every seed), a
cluster, or the data set of a scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from harness.config.cluster import ClusterConfig
from harness.config.discovery import matching
from harness.config.layers import (
    NAME_WORDS,
    find_file,
    is_safe_name,
    load_named_layers,
    nest,
    overrides_layer,
)
from harness.config.mistakes import COMMAND_LINE, ConfigError, Mistake, nearest_name
from harness.config.schema import TrialConfig
from harness.config.sections import DataConfig, Section
from harness.config.trial_hash import training_hash, trial_hash
from harness.config.validation import check_keys, validate
from harness.config.yaml_source import Node, read_yaml
from models.errors import one_line

CLUSTER = "cluster"
SEED = "seed"
QUESTION = "question"


def _differ(seeds: tuple[int, ...]) -> tuple[int, ...]:
    repeated = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if repeated:
        raise ValueError(f"seed {repeated[0]} is listed more than once")
    return seeds


Question = Annotated[str, matching(r"(?s).*\S.*", "a question"), AfterValidator(one_line)]
"""What an ablation or a search is to find out, in one line."""
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seeds = Annotated[tuple[Seed, ...], Field(strict=False, min_length=1), AfterValidator(_differ)]
"""The seeds that every configuration is trained with, each once."""


class _AblationKeys(Section):
    """An ablation's file, whose settings and variants are left to the trial's schema."""

    question: Question
    baseline: str
    variants: dict[str, dict[str, Any]] = Field(min_length=1)
    seeds: Seeds
    settings: dict[str, Any] = Field(default={})


@dataclass(frozen=True)
class AblationFile:
    """What the file says, its settings and variants not yet checked against the schema."""

    keys: _AblationKeys
    settings: Node
    """For all variants."""
    variants: Mapping[str, Node]
    """Differences of each variant, in the order of the file."""


def read_ablation_file(path: Path, mistakes: list[Mistake]) -> AblationFile | None:
    """Read an ablation; None, and the mistakes, where the file's own keys are wrong."""
    document = read_yaml(path, mistakes)
    if document is None:
        return None
    keys = validate(_AblationKeys, [document], mistakes)
    empty = Node({}, document.origin)
    settings = nest(document.find(("settings",)) or empty, mistakes)
    written = (document.find(("variants",)) or empty).entries()
    variants = {name: nest(node, mistakes) for name, node in written.items()}
    by_lower: dict[str, str] = {}
    for name, node in written.items():
        key = f"variants.{name}"
        if not is_safe_name(name):
            problem = f"'{name}' cannot be the name of a folder"
            mistakes.append(Mistake(node.origin, key, problem, NAME_WORDS))
        twin = by_lower.setdefault(name.lower(), name)
        if twin != name:
            problem = f"differs from '{twin}' in case alone, which is one folder on some systems"
            mistakes.append(Mistake(node.origin, key, problem, "another name"))
    if keys is None:
        return None
    if keys.baseline not in variants:
        origin = document.entries()["baseline"].origin
        problem = f"'{keys.baseline}' is not among the variants"
        expected = f"one of {', '.join(variants)}"
        nearest = nearest_name(keys.baseline, list(variants))
        mistakes.append(Mistake(origin, "baseline", problem, expected, nearest))
    return AblationFile(keys, settings, variants)


def trial_overrides(overrides: Sequence[str], mistakes: list[Mistake]) -> Node:
    """The overrides as a layer, without those of `cluster.`, which are left to `load_cluster`."""
    layer = overrides_layer(overrides, mistakes)
    return Node({k: node for k, node in layer.entries().items() if k != CLUSTER}, layer.origin)


def refuse_seeds(layers: Sequence[Node], expected: str, mistakes: list[Mistake]) -> None:
    """Refuse a seed in layers that hold for all trials, since each trial has its own; `expected`
    says where seeds are given instead."""
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


def load_ablation(
    name: str, *, scale: str, seeds: int | None, overrides: Sequence[str], experiments_dir: Path
) -> Ablation:
    """Resolve an ablation at a scale, each the name of a file below `experiments_dir`.

    Weakest first: what the scale extends, the scale, the ablation's settings, the variant's
    differences, the overrides such as `train.steps=200`, of which those of `cluster.` are left to
    `load_cluster`. A number of `seeds` stands for 0 to `seeds` - 1 instead of the file's own.

    Raises:
        ConfigError: with all mistakes in files and overrides.
    """
    mistakes: list[Mistake] = []
    layer = trial_overrides(overrides, mistakes)
    if seeds is not None and seeds < 1:
        mistakes.append(Mistake(COMMAND_LINE, "seeds", f"got {seeds}", "a whole number >= 1"))
    path = find_file("ablation", name, experiments_dir, mistakes)
    file = None if path is None else read_ablation_file(path, mistakes)
    below = load_named_layers("scale", scale, experiments_dir, mistakes)
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
        for seed in (file.keys.seeds if seeds is None else range(seeds))
        for variant, config in resolved.items()
    )
    keys = file.keys
    return Ablation(name, keys.question, keys.baseline, scale, tuple(resolved), trials)


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


class _WithCluster(BaseModel):
    """The keys as the command line names them."""

    cluster: ClusterConfig = Field(discriminator="launcher")


def load_cluster(name: str, overrides: Sequence[str], experiments_dir: Path) -> ClusterConfig:
    """Read where trials run: a file in `experiments/cluster`, and of all overrides of the command
    line those of `cluster.`, such as `cluster.workers=2`.

    Raises:
        ConfigError: with all mistakes in the file and those overrides.
    """
    mistakes: list[Mistake] = []
    below = load_named_layers("cluster", name, experiments_dir, mistakes)
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
    """Read which images a scale, a file in `experiments/scale`, trains on, with overrides such as
    `data.path=...`.

    Raises:
        ConfigError: with all mistakes in the file and the overrides.
    """
    mistakes: list[Mistake] = []
    layer = overrides_layer(overrides, mistakes)
    check_keys(_WithData, layer, mistakes)
    below = load_named_layers("scale", scale, experiments_dir, mistakes)
    config = None if below is None else validate(_WithData, [*below, layer], mistakes)
    if config is None or mistakes:
        raise ConfigError(mistakes)
    return config.data
