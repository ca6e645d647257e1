"""What a process is told to do for a search; can be written as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from pydantic import TypeAdapter

from harness.config.search_file import AnyPruner, AnySampler, PrunerConfig, SamplerConfig
from harness.config.trial_hash import trial_hash
from harness.data.datasets import data_content
from harness.machine.environment import ROOT
from harness.search.config import Search
from harness.search.metric import recorded_name
from harness.search.strategy import distributions

_PRUNER: TypeAdapter[PrunerConfig] = TypeAdapter(AnyPruner)
_SAMPLER: TypeAdapter[SamplerConfig] = TypeAdapter(AnySampler)


@dataclass(frozen=True)
class SearchOrder:
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


def order_of(
    search: Search, trials: int, storage: str | None, runs_dir: Path, store_uri: str
) -> SearchOrder:
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
    return SearchOrder(
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
