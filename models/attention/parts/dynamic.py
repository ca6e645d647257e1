"""The two parts of DyDiLA that work on redundancy: the dynamic projection and the difference.

The dynamic projection gives each token one of n projectors: `Q'_i = X_i W^(u_i)` with
`u_i = argmax_m (X_i R)_m`. On CPUs the forward pass computes that one alone; elsewhere all n are
computed and one is kept. The straight-through gradient needs the others in any case. FLOPs count
one projector a token.

The token differential operator subtracts the redundancy: `Q^_i = Q~_i - lambda_i Q'~_i`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.attention.parts.routing import (
    Choice,
    InitialFactors,
    LearnsFactor,
    Router,
    RouterLearning,
    through_softmax,
)
from models.randomness import SelfInitialized


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
        if isinstance(tokens, FakeTensor) and not torch.compiler.is_compiling():
            # Without values there is no choice to sort by; for shapes, and for counting what a
            # token costs, one projector is like another.
            return choice.gated(F.linear(tokens, self.weight[: self.width]))
        half = torch.is_autocast_enabled(tokens.device.type)
        traced = torch.compiler.is_compiling()
        if choice.gradient == "gate" or tokens.device.type != "cpu" or half or traced:
            return choice.gated(self._dense(tokens, choice))
        # Tokens are sorted by their choice, so that each meets its own projector alone. The host
        # must know how many chose each: a wait on a GPU, and impossible where a pass is traced.
        logits, index = choice.logits.flatten(0, -2).t(), choice.index.flatten()
        rows = tokens.flatten(0, -2)
        chosen: Tensor = _ChosenProjection.apply(rows, self.weight, logits, index)
        return chosen.view(tokens.shape)

    def _dense(self, tokens: Tensor, choice: Choice) -> Tensor:
        """All projections, of which one is kept: without a look at the choice by the host."""
        projected = F.linear(tokens, self.weight)
        candidates = projected.unflatten(-1, (self.projectors, self.width))
        weights = choice.weights.to(projected.dtype)
        # One multiply-add pass a projector; an einsum would copy the candidates first.
        chosen = candidates[..., 0, :] * weights[..., :1]
        for own, weight in zip(
            candidates.unbind(-2)[1:], weights.split(1, dim=-1)[1:], strict=True
        ):
            chosen = torch.addcmul(chosen, own, weight)
        return chosen


class _ChosenProjection(torch.autograd.Function):
    """`W^(u_i) x_i` for each of R rows, with the straight-through gradient to logits (n, R).

    Forward one product a row instead of n. The gradient to the router is that of
    `sum_m softmax(logits)_m W^(m) x`, which needs the gradient times every projector; what it gives
    for the chosen one is the gradient to the row too.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, bank: Tensor, logits: Tensor, index: Tensor) -> Tensor:
        order = index.argsort(stable=True)
        projectors = bank.unflatten(0, (len(logits), -1))
        counts = torch.bincount(index, minlength=len(logits)).tolist()
        grouped, projected = rows.index_select(0, order), torch.empty_like(rows)
        for own, target, projector in zip(
            grouped.split(counts), projected.split(counts), projectors, strict=True
        ):
            torch.mm(own, projector.t(), out=target)
        ctx.counts = counts
        ctx.save_for_backward(rows, bank, logits, order)
        return torch.index_select(projected, 0, order.argsort(), out=grouped)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        rows, bank, logits, order = ctx.saved_tensors
        to_rows, to_bank, to_weights = map(torch.empty_like, (rows, bank, logits))
        projectors, to_projectors = (
            part.view(len(logits), -1, part.shape[-1]) for part in (bank, to_bank)
        )
        for option, own in enumerate(order.split(ctx.counts)):
            torch.mm(gradient[own].t(), rows[own], out=to_projectors[option])
            through = gradient @ projectors[option]
            to_rows[own] = through[own]
            torch.sum(through.mul_(rows), dim=-1, out=to_weights[option])
        return to_rows, to_bank, through_softmax(logits, to_weights), None


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
        """Lambda, (..., 1), of any `Q~_i` and `Q'~_i`, (..., d)."""
        return self.factor.to(plain.dtype).expand(*redundant.shape[:-1], 1)


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
        """`lambda_i` (..., 1) of `Q~_i` and `Q'~_i`, (..., d)."""
        choice = self.router(plain, redundant)
        return choice.gated(choice.of_values(self.factors.to(plain.dtype))[..., None])
