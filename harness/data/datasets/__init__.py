"""Data sets, found by the names of the modules in this package.

A data set is one module with a function `load(config: DataConfig) -> DataSet`.
"""

from __future__ import annotations

import importlib

from harness.config.schema import DataConfig
from harness.data.labelled_images import DataSet


def load_data_set(config: DataConfig) -> DataSet:
    """Read the data set that a configuration names.

    Raises:
        UserError: it is missing, or its images do not fit the configuration.
    """
    module = importlib.import_module(f"{__name__}.{config.name}")
    data_set: DataSet = module.load(config)
    return data_set
