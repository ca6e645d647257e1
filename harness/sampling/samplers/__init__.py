"""Samplers, found by the names of the modules in this package."""

from __future__ import annotations

import importlib
import pkgutil

from harness.sampling.samplers.base import Sampler
from models.errors import UserError
from models.objectives.base import ObjectiveConfig

_CONTRACT = "base"


def sampler_names() -> tuple[str, ...]:
    """The names of all samplers, sorted, found without importing them."""
    found = (module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    return tuple(sorted(name for name in found if name != _CONTRACT))


def build_sampler(name: str, steps: int, objective: ObjectiveConfig) -> Sampler:
    """Set up one sampler for one batch.

    Args:
        name: of a module in this package.
        steps: intervals between noise and image.
        objective: what the network was trained for, with its noise schedule.

    Raises:
        KeyError: no module of that name is in this package.
        UserError: the sampler does not fit the objective, or has more steps than its schedule.
    """
    if name not in sampler_names():
        raise KeyError(name)
    module = importlib.import_module(f"{__name__}.{name}")
    if not isinstance(objective, module.OBJECTIVE):
        wanted = module.OBJECTIVE.model_fields["name"].default
        raise UserError(
            f"sample.sampler {name} needs objective.name {wanted}, not {objective.name}: "
            "change one of the two"
        )
    sampler: Sampler = module.Sampler(steps, objective)
    return sampler
