"""Data sets, found by the names of the modules in this package.

A data set is one module with two functions: `check(config: DataConfig) -> None`, which sees without
reading an image that the data set is there and fits the configuration, and
`load(config: DataConfig) -> DataSet`, which begins with the same check.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from harness.config.schema import DataConfig
from harness.data.labelled_images import DataSet


def check_data_set(config: DataConfig) -> None:
    """See that a data set is there, in no time, before any process is started for it.

    Raises:
        UserError: it is missing, or does not fit the configuration.
    """
    _module(config).check(config)


def load_data_set(config: DataConfig) -> DataSet:
    """Read the data set that a configuration names.

    Raises:
        UserError: it is missing, or its images do not fit the configuration.
    """
    data_set: DataSet = _module(config).load(config)
    return data_set


def _module(config: DataConfig) -> ModuleType:
    return importlib.import_module(f"{__name__}.{config.name}")
