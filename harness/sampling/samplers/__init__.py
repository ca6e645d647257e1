"""Samplers, found in the modules of this package; `base.py` says what a module defines."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from harness.sampling.samplers.base import Sampler
from models.errors import UserError
from models.objectives.base import ObjectiveConfig


def build_sampler(name: str, steps: int, objective: ObjectiveConfig) -> Sampler:
    """Set up one sampler for one batch.

    Args:
        name: of a sampler.
        steps: intervals between noise and image.
        objective: what the network was trained for, with its noise schedule.

    Raises:
        KeyError: there is no sampler of that name.
        UserError: the sampler does not fit the objective, or has more steps than its schedule.
    """
    for module in _modules():
        if name not in module.NAMES:
            continue
        if objective.name != module.OBJECTIVE:
            raise UserError(
                f"sample.sampler {name} needs objective.name {module.OBJECTIVE}, not "
                f"{objective.name}: change one of the two"
            )
        sampler: Sampler = module.build(name, steps, objective)
        return sampler
    raise KeyError(name)


def _modules() -> list[ModuleType]:
    """The families of samplers, in the order of their names."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.ispkg)
    return [importlib.import_module(f"{__name__}.{name}") for name in names if name != "base"]
