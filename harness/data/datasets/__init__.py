"""Data sets, found by the names of the modules in this package.

A data set is one module with three functions. `check(config: DataConfig) -> None` sees without
reading an image that the data set is there and fits the configuration.
`content(config: DataConfig) -> str | None` is a hash of all that the network will see, or None
where a library carries the images. `load(config: DataConfig) -> DataSet` sees the same as `check`,
of images when it opens them.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from harness.config.sections import DataConfig
from harness.data.images import DataSet
from models.errors import UserError


def data_content(config: DataConfig) -> str | None:
    """The hash of a data set, once it is seen to be there; asked before any process is started.

    Raises:
        UserError: it is missing, does not fit the configuration, or is not the one that
            `data.content` asks for.
    """
    module = _module(config)
    module.check(config)
    return _met_content(module, config)


def load_data_set(config: DataConfig) -> DataSet:
    """Read the data set that a configuration names.

    Raises:
        UserError: it is missing, its images do not fit the configuration, or it is not the one
            that `data.content` asks for.
    """
    module = _module(config)
    if config.content is not None:
        _met_content(module, config)
    data_set: DataSet = module.load(config)
    return data_set


def _met_content(module: ModuleType, config: DataConfig) -> str | None:
    """The hash, which is the one asked for where one is."""
    content: str | None = module.content(config)
    if config.content is not None and content != config.content:
        raise UserError(
            f"data.content is {config.content}, but the data at {config.latents or config.path} "
            f"have {content}: they are not the ones asked for; name those, or set "
            "data.content=null to run anew with these"
        )
    return content


def _module(config: DataConfig) -> ModuleType:
    return importlib.import_module(f"{__name__}.{config.name}")
