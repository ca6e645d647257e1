"""From an experiment file to figures in MLflow, each stage a package of its own.

What a notebook needs can be imported from here, and is loaded when it is first used: importing
`harness` imports none of the heavy libraries.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.training.export import load_exported
    from harness.trial.notebook import draw, load_trial, measure, read_config, read_report

__all__ = ["draw", "load_exported", "load_trial", "measure", "read_config", "read_report"]

_NOTEBOOK = "harness.trial.notebook"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "harness.training.export" if name == "load_exported" else _NOTEBOOK
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
