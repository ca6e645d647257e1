"""Learnable scalars that a router chooses from: exponents and lambdas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class InitialFactors:
    """n values, spaced evenly from `center - spread` to `center + spread`; one is the centre.

    With a spread of 0 all start equal, and since a router learns from the differences between what
    it can choose, it does not learn before the factors have drifted apart.
    """

    options: int
    center: float
    spread: float

    def values(self) -> Tensor:
        """(n,)."""
        spread = self.spread if self.options > 1 else 0.0
        return torch.linspace(self.center - spread, self.center + spread, self.options)


class LearnsFactor(ABC):
    """A module with learned factors: exponents or lambdas."""

    @property
    @abstractmethod
    def learned_factor(self) -> nn.Parameter:
        """All of them, in one parameter."""


def factor_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The factors of all modules of a model; those that several modules share come once."""
    found = [
        module.learned_factor for module in model.modules() if isinstance(module, LearnsFactor)
    ]
    return list({id(parameter): parameter for parameter in found}.values())
