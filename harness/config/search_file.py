"""One file of `experiments/search/`: a question, a base configuration and what to vary in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from harness.config.layers import nest
from harness.config.mistakes import Mistake
from harness.config.validation import validate
from harness.config.yaml_source import Node, read_yaml
from harness.search.space import Dimension, parse_dimension

QUESTION = "question"
_BASE = "base"
_SPACE = "space"
_SHORTHANDS = {"pruner": "name", "sampler": "name"}

Metric = Literal[
    "validation_loss", "fd", "sfd", "kd", "is", "precision", "recall", "density", "coverage"
]
"""The short names of what a search can optimise. All but the first are on the configuration's
extractor."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ObjectiveConfig(_Section):
    """What a configuration is judged by: the mean over its seeds."""

    metric: Metric = "validation_loss"
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(
        default=(0, 1), strict=False, min_length=1
    )

    @property
    def maximize(self) -> bool:
        """Whether more is better."""
        return self.metric in ("is", "precision", "recall", "density", "coverage")

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        repeated = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        if repeated:
            raise ValueError(f"seed {repeated[0]} is listed more than once")
        return seeds


class MedianPruner(_Section):
    """Stops what is worse than the median of the others at the same step."""

    name: Literal["median"] = "median"
    startup_trials: int = Field(
        default=5, ge=0, description="completed trials before any is pruned"
    )
    warmup_steps: int = Field(
        default=0, ge=0, description="steps of the first seed before any is pruned"
    )


class HyperbandPruner(_Section):
    """Successive halving with several budgets (Li et al., 2018)."""

    name: Literal["hyperband"] = "hyperband"
    min_steps: int | None = Field(
        default=None, ge=1, description="the smallest budget; null takes train.validate_every"
    )
    reduction_factor: int = Field(default=3, ge=2)


class NoPruner(_Section):
    """Trains everything to its end."""

    name: Literal["none"] = "none"


class TpeSampler(_Section):
    """Tree-structured Parzen estimator (Bergstra et al., 2011)."""

    name: Literal["tpe"] = "tpe"
    seed: int = Field(default=0, ge=0, lt=2**31)
    startup_trials: int = Field(
        default=10, ge=1, description="random trials before the first guided one"
    )


class RandomSampler(_Section):
    """Independent draws."""

    name: Literal["random"] = "random"
    seed: int = Field(default=0, ge=0, lt=2**31)


class QuasiRandomSampler(_Section):
    """A scrambled Sobol sequence, which covers the space more evenly than independent draws."""

    name: Literal["qmc"] = "qmc"
    seed: int = Field(default=0, ge=0, lt=2**31)


class GaussianProcessSampler(_Section):
    """Expected improvement under a Gaussian process."""

    name: Literal["gp"] = "gp"
    seed: int = Field(default=0, ge=0, lt=2**31)
    startup_trials: int = Field(
        default=10, ge=1, description="random trials before the first guided one"
    )


PrunerConfig = MedianPruner | HyperbandPruner | NoPruner
SamplerConfig = TpeSampler | RandomSampler | QuasiRandomSampler | GaussianProcessSampler
AnyPruner = Annotated[PrunerConfig, Field(discriminator="name")]
AnySampler = Annotated[SamplerConfig, Field(discriminator="name")]


class _Keys(_Section):
    """The keys of such a file; what base and space hold is the trial schema's business."""

    question: str = Field(min_length=1)
    base: str | dict[str, Any]
    space: dict[str, Any] = Field(min_length=1)
    objective: ObjectiveConfig = ObjectiveConfig()
    pruner: AnyPruner = MedianPruner()
    sampler: AnySampler = TpeSampler()


@dataclass(frozen=True)
class SearchFile:
    """What the file says, its base and the keys of its space not yet checked against the schema."""

    question: str
    base: Node
    """Settings, nested, or a text ABLATION/VARIANT."""
    space: Mapping[str, Dimension]
    """By dotted key, in the order of the file."""
    entries: Mapping[str, Node]
    """Where each key of the space was written."""
    objective: ObjectiveConfig
    pruner: PrunerConfig
    sampler: SamplerConfig


def read_search_file(path: Path, mistakes: list[Mistake]) -> SearchFile | None:
    """Read a search.

    Returns:
        Its contents; None, and the mistakes, where the file's own keys are wrong. Wrong dimensions
        are mistakes too, and left out.
    """
    document = read_yaml(path, mistakes)
    if document is None:
        return None
    keys = validate(_Keys, [_with_shorthands(document)], mistakes)
    written = nest(document.find((_SPACE,)) or Node({}, document.origin), mistakes)
    entries = dict(_leaves(written, ""))
    read = {key: parse_dimension(node, key, mistakes) for key, node in entries.items()}
    if keys is None:
        return None
    base = document.entries()[_BASE]
    return SearchFile(
        question=" ".join(keys.question.split()),
        base=nest(base, mistakes) if isinstance(base.value, dict) else base,
        space={key: dimension for key, dimension in read.items() if dimension is not None},
        entries=entries,
        objective=keys.objective,
        pruner=keys.pruner,
        sampler=keys.sampler,
    )


def _with_shorthands(document: Node) -> Node:
    """`pruner: median` is `pruner: {name: median}`."""
    entries = dict(document.entries())
    for key, inner in _SHORTHANDS.items():
        node = entries.get(key)
        if node is not None and isinstance(node.value, str):
            entries[key] = Node({inner: node}, node.origin)
    return Node(entries, document.origin)


def _leaves(node: Node, prefix: str) -> Iterator[tuple[str, Node]]:
    for key, child in node.entries().items():
        if child.entries():
            yield from _leaves(child, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", child
