from __future__ import annotations

import importlib
import pkgutil
from typing import get_args

from harness.config.sections import DataConfig
from harness.data import datasets


def test_every_name_of_the_configuration_has_its_module_and_the_reverse() -> None:
    modules = {module.name for module in pkgutil.iter_modules(datasets.__path__)} - {"base"}
    assert modules == set(get_args(DataConfig.model_fields["name"].annotation))
    for name in modules:
        module = importlib.import_module(f"{datasets.__name__}.{name}")
        assert callable(module.load)
        assert callable(module.check)
        assert callable(module.content)
