"""All that the workers of a search are told; can be written as JSON and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from pydantic import Field

from harness.config.sections import Section
from harness.config.trial_hash import trial_hash
from harness.data.datasets import data_content
from harness.search.config import Search
from harness.search.strategy import AnyPruner, AnySampler
from harness.vocabulary.metrics import recorded_name


class SearchSpec(Section):
    """What a worker needs to take trials of a study and run them."""

    name: str
    scale: str
    folder: str = Field(description="of the study, where it is a file, and of its outcome")
    storage: str | None = Field(description="URL of a database; null for a file in the folder")
    trials: int = Field(description="how many the study shall have in all")
    definition: dict[str, Any] = Field(
        description="all that makes two trials comparable: space, objective, base configuration"
    )
    tree: dict[str, Any] = Field(description="the base configuration, as `Search.tree`")
    default: dict[str, Any] | None = Field(description="the base as a point, if it is one")
    space: dict[str, str] = Field(description="dotted keys to Optuna's distributions as JSON")
    metric: str = Field(description="the key in a trial's metrics")
    maximize: bool
    seeds: tuple[int, ...] = Field(strict=False)
    pruner: AnyPruner
    sampler: AnySampler
    validate_every: int = Field(description="steps of training")
    longest: int = Field(description="the most training steps that a point of the space may have")
    runs_dir: str
    store_uri: str
    threads: int = 1
    side_by_side: int = 1

    @property
    def study(self) -> str:
        """The study's name in its storage, which may hold those of other searches."""
        return f"{self.scale}/{self.name}"

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def last_step(self) -> int:
        """The last step that a trial can report, over all its seeds."""
        return self.longest * len(self.seeds)

    def distributions(self) -> dict[str, BaseDistribution]:
        """The space as Optuna knows it."""
        return {key: json_to_distribution(text) for key, text in self.space.items()}


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
    space = {key: distribution_to_json(it) for key, it in search.space.items()}
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
        pruner=search.pruner,
        sampler=search.sampler,
        validate_every=search.base.train.validate_every,
        longest=search.longest,
        runs_dir=str(runs_dir),
        store_uri=store_uri,
    )
