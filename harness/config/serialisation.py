"""A configuration as plain values, as flat parameters, as YAML, and back."""

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
