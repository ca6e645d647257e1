"""The data set of a scale, without an ablation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from harness.config.catalogue import find_file
from harness.config.layers import load_layers
from harness.config.merge import overrides_layer
from harness.config.mistakes import ConfigError, Mistake
from harness.config.sections.data import DataConfig
from harness.config.validation import check_keys, validate


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
