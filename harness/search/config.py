"""A file of `experiments/search/`, checked at a scale: a question, a base configuration, and the
ranges of the fields to vary in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from pydantic import Field

from harness.config.layers import find_file, load_named_layers, merge, nest
from harness.config.load import (
    SEED,
    Question,
    Seeds,
    read_ablation_file,
    refuse_seeds,
    trial_overrides,
)
from harness.config.mistakes import ConfigError, Mistake, Origin, nearest_name
from harness.config.schema import TrialConfig, unmeasured
from harness.config.sections import Section, is_without_effect
from harness.config.serialisation import flatten
from harness.config.trial_hash import trial_hash
from harness.config.validation import (
    all_fields,
    check_keys,
    takes_whole_numbers,
    union_tags,
    validate,
)
from harness.config.yaml_source import Node, Scalar, quoted, read_yaml
from harness.search.space import dimensions, holds, probes, read_dimension
from harness.search.strategy import AnyPruner, AnySampler, Median, Tpe
from harness.vocabulary.metrics import (
    VALIDATION_LOSS,
    JudgedBy,
    higher_is_better,
    recorded_name,
)

QUESTION = "question"


class ObjectiveConfig(Section):
    """What a configuration is judged by: the mean over its seeds."""

    metric: JudgedBy = VALIDATION_LOSS
    seeds: Seeds = (0, 1)

    @property
    def maximize(self) -> bool:
        """Whether more is better."""
        return higher_is_better(self.metric)


class SearchKeys(Section):
    """The keys of such a file; what base and space hold is the trial schema's business."""

    question: Question
    base: str | dict[str, Any]
    space: dict[str, Any] = Field(min_length=1)
    objective: ObjectiveConfig = ObjectiveConfig()
    pruner: AnyPruner = Median()
    sampler: AnySampler = Tpe()


Point = Mapping[str, Scalar]
"""A value for each key of a space."""


@dataclass(frozen=True)
class SearchFile:
    """What the file says, its base and the keys of its space not yet checked against the schema."""

    keys: SearchKeys
    base: Node
    """Settings, nested, or a text ABLATION/VARIANT."""
    space: Mapping[str, BaseDistribution]
    """The distribution of each field that is varied, by dotted key."""
    entries: Mapping[str, Node]
    """Where each key of the space was written."""
    metric: Origin
    """The place that messages about the metric name."""


def read_search_file(path: Path, mistakes: list[Mistake]) -> SearchFile | None:
    """Read a search.

    Returns:
        Its contents; None, and the mistakes, where the file's own keys are wrong. Wrong dimensions
        are mistakes too, and left out.
    """
    document = read_yaml(path, mistakes)
    if document is None:
        return None
    written = dict(document.entries())
    for key in ("pruner", "sampler"):
        if key in written and isinstance(written[key].value, str):
            # `pruner: median` is `pruner: {name: median}`.
            written[key] = Node({"name": written[key]}, written[key].origin)
    keys = validate(SearchKeys, [Node(written, document.origin)], mistakes)
    space = nest(written.get("space") or Node({}, document.origin), mistakes)
    entries, fields, found = dict(dimensions(space)), all_fields(TrialConfig), {}
    for key, node in entries.items():
        whole = key in fields and takes_whole_numbers(fields[key])
        dimension = read_dimension(node, key, whole=whole, mistakes=mistakes)
        if dimension is not None:
            found[key] = dimension
    if keys is None:
        return None
    base = written["base"]
    base = nest(base, mistakes) if isinstance(base.value, dict) else base
    metric = document.find(("objective", "metric")) or document
    return SearchFile(keys, base, found, entries, metric.origin)


class Search(Section):
    """A question, and the configurations among which its answer is looked for."""

    name: str
    question: str
    scale: str
    objective: ObjectiveConfig
    pruner: AnyPruner
    sampler: AnySampler
    space: dict[str, str] = Field(description="dotted keys to Optuna's distributions as JSON")
    tree: dict[str, Any]
    """The base configuration, plain and merged, without the schema's defaults: a changed name of an
    attention variant or size must still be able to take its own."""
    differences: dict[str, Any] = Field(description="what of `tree` is not from the scale")
    base: TrialConfig = Field(description="the base, complete, with the first seed")
    longest: int = Field(description="the most training steps that a point of the space may have")

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.objective.seeds

    @property
    def metric(self) -> str:
        """The key in a trial's metrics."""
        return recorded_name(self.objective.metric, self.base.evaluate.extractor)

    @property
    def last_step(self) -> int:
        """The last step that a trial can report, over all its seeds."""
        return self.longest * len(self.seeds)

    @property
    def default(self) -> dict[str, Any] | None:
        """The base configuration as a point; None where it lies outside of the space."""
        flat, distributions = flatten(self.base), self.distributions()
        if all(key in flat and holds(it, flat[key]) for key, it in distributions.items()):
            return {key: flat[key] for key in distributions}
        return None

    @property
    def definition(self) -> dict[str, Any]:
        """All that makes two trials comparable."""
        return {
            "space": self.space,
            "objective": {"metric": self.metric, "seeds": list(self.seeds)},
            "base configuration": trial_hash(self.base),
        }

    def distributions(self) -> dict[str, BaseDistribution]:
        """The space as Optuna knows it."""
        return {key: json_to_distribution(text) for key, text in self.space.items()}


class SearchSpec(Search):
    """What a worker needs to take trials of a study and run them; can be written as JSON.

    The base is bound to the very data, whose hash is part of the trials' hashes.
    """

    folder: str = Field(description="of the study, where it is a file, and of its outcome")
    storage: str | None = Field(description="URL of a database; null for a file in the folder")
    trials: int = Field(description="how many the study shall have in all")
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


def config_at(tree: Mapping[str, Any], point: Point, seed: int, where: str) -> TrialConfig:
    """The configuration at a point, which messages call `where`, of a space whose search has this
    `tree`.

    Raises:
        ConfigError: values that each fit their field do not fit together.
    """
    mistakes: list[Mistake] = []
    origin = Origin(where)
    layers = [_node(dict(tree), origin), _layer({**point, SEED: seed}, origin)]
    config = validate(TrialConfig, layers, mistakes)
    if config is None:
        raise ConfigError(mistakes)
    return config


def differences_at(differences: Mapping[str, Any], point: Point) -> dict[str, Any]:
    """A search's `differences` with the values of a point in them, as an ablation's variant."""
    origin = Origin("point")
    layers = [_node(dict(differences), origin), _layer(point, origin)]
    return dict(merge(layers, union_tags(TrialConfig)).plain())


def load_search(
    name: str, *, scale: str, overrides: Sequence[str], experiments_dir: Path
) -> Search:
    """Resolve a search at a scale; overrides of `cluster.` are left to `load_cluster`.

    Weakest first: what the scale extends, the scale, the base's settings, the overrides, a point.

    Raises:
        ConfigError: with all mistakes in files and overrides.
    """
    mistakes: list[Mistake] = []
    layer = trial_overrides(overrides, mistakes)
    path = find_file("search", name, experiments_dir, mistakes)
    file = None if path is None else read_search_file(path, mistakes)
    below = load_named_layers("scale", scale, experiments_dir, mistakes)
    own = None if file is None else _base_layers(file, experiments_dir, mistakes)
    if file is None or below is None or own is None:
        check_keys(TrialConfig, layer, mistakes)
        raise ConfigError(mistakes)
    refuse_seeds([*below[1:], *own, layer], "the seeds in the search's `objective:`", mistakes)
    layers = [*below, *own, layer]
    base = validate(TrialConfig, layers, mistakes)
    longest = _check_space(file, layers, layer, base, mistakes)
    if base is not None:
        _check_metric(file, base, mistakes)
    if base is None or mistakes:
        raise ConfigError(mistakes)
    tags = union_tags(TrialConfig)
    return Search(
        name=name,
        question=file.keys.question,
        scale=scale,
        objective=file.keys.objective,
        pruner=file.keys.pruner,
        sampler=file.keys.sampler,
        space={key: distribution_to_json(it) for key, it in file.space.items()},
        tree=merge(layers, tags).plain(),
        differences=merge([*own, layer], tags).plain(),
        base=base.model_copy(update={SEED: file.keys.objective.seeds[0]}),
        longest=longest,
    )


def _base_layers(
    file: SearchFile, experiments_dir: Path, mistakes: list[Mistake]
) -> list[Node] | None:
    """The layers that the base adds to the scale's; None, and a mistake, where it is unknown."""
    if not isinstance(file.base.value, str):
        return [file.base]
    ablation, slash, variant = file.base.value.partition("/")
    if not slash:
        expected = "ABLATION/VARIANT, as in baselines/dydila, or a section of settings"
        problem = f"{quoted(file.base)} names no variant of an ablation"
        mistakes.append(Mistake(file.base.origin, "base", problem, expected))
        return None
    unknown: list[Mistake] = []
    path = find_file("ablation", ablation, experiments_dir, unknown)
    mistakes += [replace(mistake, origin=file.base.origin, key="base") for mistake in unknown]
    named = None if path is None else read_ablation_file(path, mistakes)
    if named is None:
        return None
    if variant not in named.variants:
        expected = f"one of {', '.join(named.variants)}"
        nearest = nearest_name(variant, list(named.variants))
        problem = f"{ablation} has no variant '{variant}'"
        mistakes.append(Mistake(file.base.origin, "base", problem, expected, nearest))
        return None
    return [named.settings, named.variants[variant]]


def _check_metric(file: SearchFile, base: TrialConfig, mistakes: list[Mistake]) -> None:
    """See that every configuration of the search is measured by one and the same metric."""
    metric, extractor = file.keys.objective.metric, base.evaluate.extractor
    problems = unmeasured("objective.metric", metric, extractor)
    if metric != VALIDATION_LOSS and "evaluate.extractor" in file.entries:
        problems.append(f"{metric} on one extractor does not compare with {metric} on another")
    mistakes += [Mistake(file.metric, "objective.metric", text) for text in problems]


def _check_space(
    file: SearchFile,
    layers: Sequence[Node],
    overrides: Node,
    base: TrialConfig | None,
    mistakes: list[Mistake],
) -> int:
    """Check every key and the ends of every range; the most training steps there are."""
    valid = all_fields(TrialConfig)
    longest = 0 if base is None else base.train.steps
    for key, written in file.entries.items():
        origin = written.origin
        if key not in valid:
            nearest = nearest_name(key, list(valid))
            mistakes.append(Mistake(origin, key, "unknown key", nearest=nearest))
            continue
        if key == SEED:
            expected = "the seeds in `objective:`"
            mistakes.append(Mistake(origin, key, "each trial has its own seed", expected))
            continue
        if is_without_effect(valid[key]):
            problem = "cannot change a result, so there is nothing to find out"
            mistakes.append(Mistake(origin, key, problem))
            continue
        if (again := overrides.find(key.split("."))) is not None:
            problem = "is searched over, so it cannot be set as well"
            mistakes.append(Mistake(again.origin, key, problem))
        for value in probes(file.space[key]) if key in file.space and base is not None else ():
            config = validate(TrialConfig, [*layers, _layer({key: value}, origin)], mistakes)
            if config is None:
                break  # the other end has the same to say, as a rule
            longest = max(longest, config.train.steps)
    return longest


def _layer(point: Point, origin: Origin) -> Node:
    return nest(Node({key: Node(value, origin) for key, value in point.items()}, origin), [])


def _node(value: Any, origin: Origin) -> Node:
    """A plain value with an origin at every level."""
    if isinstance(value, dict):
        return Node({key: _node(item, origin) for key, item in value.items()}, origin)
    if isinstance(value, list | tuple):
        return Node(tuple(_node(item, origin) for item in value), origin)
    return Node(value, origin)
