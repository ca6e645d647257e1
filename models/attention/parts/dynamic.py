"""The two parts of DyDiLA that work on redundancy: the dynamic projection and the difference.

The dynamic projection gives each token one of n projectors: `Q'_i = X_i W^(u_i)` with
`u_i = argmax_m (X_i R)_m`. All n projections are computed and one is kept, since the
straight-through gradient needs the others, and dense products are what hardware is good at; the
cost counts them all.

The token differential operator subtracts the redundancy: `Q^_i = Q~_i - lambda_i Q'~_i`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention.parts.routing import InitialFactors, LearnsFactor, Router, RouterLearning
from models.initialization import SelfInitialized


class ProjectorBank(nn.Module, SelfInitialized):
    """(B, N, D) to (B, N, D). With one projector there is no router.

    Each projector starts as the query and the key projection do: Xavier-uniform as a third of a
    (3 D, D) matrix, whose bound is sqrt(6 / 4D).
    """

    def __init__(self, width: int, projectors: int, learning: RouterLearning) -> None:
        super().__init__()
        self.width = width
        self.projectors = projectors
        # (n D, D) rather than (n, D, D): FSDP cuts the first dimension, and n rarely divides.
        self.weight = nn.Parameter(torch.empty(projectors * width, width))
        self.router = Router(width, projectors, learning) if projectors > 1 else None

    def initialize(self, generator: torch.Generator) -> None:
        bound = (6 / (4 * self.width)) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        if self.router is None:
            return F.linear(tokens, self.weight)
        choice = self.router(tokens)
        projected = F.linear(tokens, self.weight)
        candidates = projected.unflatten(-1, (self.projectors, self.width))
        weights = choice.weights.to(projected.dtype)
        # One multiply-add pass a projector; an einsum would copy the candidates first.
        chosen = candidates[..., 0, :] * weights[..., :1]
        for option in range(1, self.projectors):
            chosen = torch.addcmul(
                chosen, candidates[..., option, :], weights[..., option : option + 1]
            )
        return choice.gated(chosen)


class StaticDifference(nn.Module, SelfInitialized, LearnsFactor):
    """One learnable lambda for all tokens."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.initial = initial
        # Not a scalar, which FSDP cannot share out.
        self.factor = nn.Parameter(torch.empty(1))

    def initialize(self, generator: torch.Generator) -> None:
        nn.init.constant_(self.factor, self.initial)

    @property
    def learned_factor(self) -> nn.Parameter:
        return self.factor

    def forward(self, plain: Tensor, redundant: Tensor) -> Tensor:
        """`lambda Q'~`, what is to be subtracted from `Q~`; all (B, H, N, d)."""
        return self.factor.to(plain.dtype) * redundant


class ChosenDifference(nn.Module, SelfInitialized, LearnsFactor):
    """One of n learnable lambdas, chosen for each row by routing on `[Q~_i, Q'~_i]`.

    With a router that learns through a gate, the chosen lambda is multiplied by its probability,
    which is about 1/n at first.
    """

    def __init__(self, head_dim: int, initial: InitialFactors, learning: RouterLearning) -> None:
        super().__init__()
        self.initial = initial
        self.router = Router(2 * head_dim, initial.options, learning)
        self.factors = nn.Parameter(torch.empty(initial.options))

    def initialize(self, generator: torch.Generator) -> None:
        self.factors.copy_(self.initial.values())

    @property
    def learned_factor(self) -> nn.Parameter:
        return self.factors

    def forward(self, plain: Tensor, redundant: Tensor) -> Tensor:
        """`lambda_i Q'~_i`, what is to be subtracted from `Q~_i`; all (B, H, N, d)."""
        choice = self.router(torch.cat([plain, redundant], dim=-1))
        factor = choice.of_values(self.factors.to(plain.dtype))
        return choice.gated(factor[..., None] * redundant)
