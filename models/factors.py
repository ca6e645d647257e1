"""Learnable scalars that a router chooses from: exponents and lambdas."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
