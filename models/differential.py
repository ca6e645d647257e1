"""The token differential operator: subtract each token's redundancy (DyDiLA).

`Q^_i = Q~_i - lambda_i Q'~_i`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.attention.parts.routing import Router, RouterLearning
from models.factors import InitialFactors, LearnsFactor
from models.initialization import SelfInitialized


class StaticDifference(nn.Module, SelfInitialized, LearnsFactor):
    """One learnable lambda for all tokens."""

    options = 0

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.initial = initial
        self.factor = nn.Parameter(torch.empty(()))

    def initialize(self, generator: torch.Generator) -> None:
        nn.init.constant_(self.factor, self.initial)

    @property
    def learned_factor(self) -> nn.Parameter:
        return self.factor

    def forward(self, plain: Tensor, redundant: Tensor) -> Tensor:
        return plain - self.factor.to(plain.dtype) * redundant


class ChosenDifference(nn.Module, SelfInitialized, LearnsFactor):
    """One of n learnable lambdas, chosen for each row by routing on `[Q~_i, Q'~_i]`.

    `options` is the number of router logits a row costs, for counting FLOPs.
    """

    def __init__(self, head_dim: int, initial: InitialFactors, learning: RouterLearning) -> None:
        super().__init__()
        self.options = initial.options
        self.initial = initial
        self.router = Router(2 * head_dim, initial.options, learning)
        self.factors = nn.Parameter(torch.empty(initial.options))

    def initialize(self, generator: torch.Generator) -> None:
        self.factors.copy_(self.initial.values())

    @property
    def learned_factor(self) -> nn.Parameter:
        return self.factors

    def forward(self, plain: Tensor, redundant: Tensor) -> Tensor:
        choice = self.router(torch.cat([plain, redundant], dim=-1))
        factor = choice.of_values(self.factors.to(plain.dtype))
        return plain - choice.gated(factor[..., None] * redundant)
