"""A configuration as plain values, as flat parameters, as YAML and back, and in words that stand
beside a trial's figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.config.mistakes import ConfigError, Mistake
from harness.config.schema import TrialConfig
from harness.config.validation import validate
from harness.config.yaml_source import Scalar, read_plain_scalar, read_yaml


def to_plain(config: TrialConfig) -> dict[str, Any]:
    """Nested dictionaries, lists and scalars, in the order of the schema."""
    return config.model_dump(mode="json")


def flatten(config: TrialConfig) -> dict[str, Scalar]:
    """Dotted keys to scalars, such as `train.steps`; a list becomes its JSON text."""
    return dict(_flat(to_plain(config), ""))


def to_yaml(config: TrialConfig) -> str:
    """YAML that `from_yaml_file` reads back as an equal configuration."""
    return plain_to_yaml(to_plain(config))


def plain_to_yaml(plain: Mapping[str, Any]) -> str:
    """YAML of nested dictionaries, lists and scalars that our reader reads back as they are."""
    return yaml.dump(
        dict(plain), Dumper=_CoreDumper, sort_keys=False, allow_unicode=True, width=100
    )


def from_yaml_file(path: Path) -> TrialConfig:
    """Read a whole configuration, as `to_yaml` writes it.

    Raises:
        ConfigError: the file cannot be read or does not fit the schema.
    """
    mistakes: list[Mistake] = []
    document = read_yaml(path, mistakes)
    config = None if document is None else validate(TrialConfig, [document], mistakes)
    if config is None or mistakes:
        raise ConfigError(mistakes)
    return config


class _CoreDumper(yaml.SafeDumper):
    """Quotes all text that YAML 1.2 would read as something else, `1e-4` above all."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if read_plain_scalar(text) is text else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_CoreDumper.add_representer(str, _represent_text)


def _flat(plain: dict[str, Any], prefix: str) -> Iterator[tuple[str, Scalar]]:
    for key, value in plain.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value) if isinstance(value, list) else value


def sampling_facts(config: TrialConfig) -> dict[str, Any]:
    """How a trial's final samples are drawn, besides the seed."""
    sample = config.sample
    # Only where it is another: figures from before there was a choice are of the last weights.
    best = {"weights": chosen_by(config)} if sample.weights == "best" else {}
    return {
        **best,
        "objective": config.objective.name,
        "sampler": sample.sampler,
        "steps": sample.steps,
        "guidance_scale": sample.guidance_scale,
        "guidance_channels": sample.guidance_channels or "all",
        "labels": sample.labels,
    }


def chosen_by(config: TrialConfig) -> str:
    """By what `best` weights are chosen, in words, for the identity of what is drawn from them."""
    train, metric = config.train, config.train.best_by
    if metric == "validation_loss":
        return f"best by {metric}, every {train.validate_every} steps"
    return (
        f"best by {metric} of {train.validation_samples} samples, "
        f"every {train.steps_between_samples} steps"
    )


def shown_precision(training: str, config: TrialConfig) -> str:
    """What a network was trained in, with what linear attention's products round where they do.

    Args:
        training: Lightning's name of the precision.
        config: of the trial.
    """
    sums = config.model.sum_precision
    return training if sums == "float32" else f"{training}, products of linear attention {sums}"
