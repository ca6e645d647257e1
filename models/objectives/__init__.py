"""Training objectives, found by the names of the modules in this package."""

from __future__ import annotations

import importlib
import pkgutil

from models.objectives.base import ObjectiveConfig, TrainingObjective


def objective_names() -> tuple[str, ...]:
    """The names of all objectives, sorted, found without importing them."""
    found = {module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg}
    return tuple(sorted(found - {"base"}))


def objective_config(name: str) -> type[ObjectiveConfig]:
    """The configuration class of one objective."""
    return importlib.import_module(f"{__name__}.{name}").Config


def build_objective(config: ObjectiveConfig) -> TrainingObjective:
    """Build the objective that a configuration describes."""
    return importlib.import_module(f"{__name__}.{config.name}").Objective(config)
