"""Choosing one of n options for each token, hard in the forward pass.

The choice is `argmax_m (z R)_m`. A hard choice has no gradient, so the router learns either
straight-through over the softmax of its logits, or through a gate: what was chosen is multiplied by
its probability. Source of the choice itself: public descriptions of DyDiLA (arXiv 2601.13683);
the gradient is our choice.

Exponents and lambdas are factors: learnable scalars that a router chooses from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.attention.parts.products import full_precision
from models.randomness import SelfInitialized

RouterGradient = Literal["straight_through", "gate"]


@dataclass(frozen=True)
class RouterLearning:
    """How a router learns."""

    gradient: RouterGradient
    balance_weight: float
    """Weight of the load-balancing loss; 0 leaves it out."""


@dataclass(frozen=True)
class Choice:
    """What a router chose for each token, and how that hands a gradient to the logits."""

    logits: Tensor
    """(..., n), with the options first in memory."""
    index: Tensor
    """(...): the option with the largest logit, the first of several."""
    gradient: RouterGradient

    @property
    def weights(self) -> Tensor:
        """(..., n): one-hot in value; carries the straight-through gradient where there is one.

        The dense form, for products over all options; `of_values` gives the same for one value an
        option without any tensor of n columns.
        """
        hard = torch.zeros_like(self.logits).scatter_(-1, self.index[..., None], 1.0)
        if self.gradient == "gate" or not self.logits.requires_grad:
            return hard
        probabilities = self.logits.softmax(dim=-1)
        # The bracket is exactly zero in value, so that the choice stays exactly one-hot.
        return hard + (probabilities - probabilities.detach())

    def of_values(self, values: Tensor) -> Tensor:
        """The chosen one of n learnable values, (n,) to (...); not gated.

        Values that differ between heads are (H, n) and the choice is one of (B, N, H).
        """
        if values.dim() > 1:
            return (self.weights * values).sum(dim=-1)
        if self.gradient == "gate" or not self.logits.requires_grad:
            return values[self.index]
        chosen: Tensor = _ChosenValue.apply(self.logits.movedim(-1, 0), values, self.index)
        return chosen

    def gated(self, chosen: Tensor) -> Tensor:
        """Apply the gate to what was chosen, (..., channels)."""
        if self.gradient == "straight_through":
            return chosen
        return chosen * self.logits.softmax(dim=-1).gather(-1, self.index[..., None])


class _ChosenValue(torch.autograd.Function):
    """`values[index]` for logits (n, ...), with the gradient of `values @ softmax(logits)` to them.

    Options come first, since reductions over nine columns take several times as long on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, values: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(logits, values, index)
        return values[index]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        logits, values, index = ctx.saved_tensors
        column = values.view(-1, *[1] * index.dim())
        to_logits = through_softmax(logits, column).mul_(gradient)
        to_values = torch.zeros_like(values).index_add_(0, index.flatten(), gradient.flatten())
        return to_logits, to_values, None


def through_softmax(logits: Tensor, to_weights: Tensor) -> Tensor:
    """The gradient to logits (n, ...) of a sum over options weighted by their softmax.

    `to_weights`, (n, ...) or (n, 1, ...), is the gradient to the weights.
    """
    probabilities = logits.softmax(dim=0)
    mean = (probabilities * to_weights).sum(dim=0)
    return (to_weights - mean).mul_(probabilities)


def _first_largest(logits: Tensor) -> Tensor:
    """Argmax over the first dimension of (n, ...), the first one where several are equal.

    By maxima without an index, which a CPU finds in a tenth of the time.
    """
    ranks = torch.arange(len(logits), 0, -1, device=logits.device, dtype=logits.dtype)
    largest = torch.eq(logits, logits.amax(dim=0), out=torch.empty_like(logits))
    rank = largest.mul_(ranks.view(-1, *[1] * (logits.dim() - 1))).amax(dim=0)
    # Where a logit is not a number, none is the largest.
    return (len(logits) - rank).long().clamp_max_(len(logits) - 1)


class _Logits(torch.autograd.Function):
    """`(W^T X^T)`: rows (R, c) and a map (c, n) to (n, R), by products of long rows alone.

    A product of R rows with n columns, which is what autograd would compute, takes five times as
    long where n is 9.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return weight.t() @ rows.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        rows, weight = ctx.saved_tensors
        return gradient.t() @ weight.t(), (gradient @ rows).t()


@dataclass(frozen=True)
class OptionUse:
    """How a router used its options in one forward pass: (n,), or (H, n) where heads differ."""

    shares: Tensor
    """The fraction of tokens that chose each; without a gradient."""
    means: Tensor | None
    """The mean probability of each; None where the pass had no gradients."""


class Router(nn.Module, SelfInitialized):
    """Chooses one of n options by a linear map of the input.

    With 1 group all share one map; with H each head of an input (B, N, H, channels) has its own.
    """

    def __init__(
        self, channels: int, options: int, learning: RouterLearning, groups: int = 1
    ) -> None:
        super().__init__()
        self.options = options
        self.learning = learning
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(groups, channels, options))
        self.use: OptionUse | None = None
        """What the last forward pass in training mode chose, for the load-balancing loss; None
        where that loss has no weight."""

    def initialize(self, generator: torch.Generator) -> None:
        for group in self.weight:
            nn.init.xavier_uniform_(group, generator=generator)

    def forward(self, *inputs: Tensor) -> Choice:
        """The choice of (...) for tensors (..., c), whose channels side by side are the router's.

        Computed in float32 at least.
        """
        parts = full_precision(*inputs)
        weight = self.weight.to(parts[0].dtype)
        with torch.autocast(parts[0].device.type, enabled=False):
            options_first = self._logits(parts, weight)
        index = _first_largest(options_first.detach())
        logits = options_first.movedim(0, -1)
        if self.training and self.learning.balance_weight > 0:
            shares = self._mean_over_tokens(F.one_hot(index, self.options).to(weight.dtype))
            learns = torch.is_grad_enabled()
            means = self._mean_over_tokens(logits.softmax(dim=-1)) if learns else None
            self.use = OptionUse(shares, means)
        return Choice(logits, index, self.learning.gradient)

    def _logits(self, parts: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        """(n, ...)."""
        if self.groups > 1:
            joined = torch.cat(parts, dim=-1)
            return torch.einsum("...hc,hcn->...hn", joined, weight).movedim(-1, 0)
        maps = weight[0].split([part.shape[-1] for part in parts])
        terms = (
            _Logits.apply(part.reshape(-1, part.shape[-1]), own)
            for part, own in zip(parts, maps, strict=True)
        )
        return reduce(torch.add, terms).view(-1, *parts[0].shape[:-1])

    def _mean_over_tokens(self, values: Tensor) -> Tensor:
        """(..., n) to (n,); where each head has a map of its own, (B, N, H, n) to (H, n)."""
        return values.flatten(0, -3 if self.groups > 1 else -2).mean(dim=0)


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
        """All factors of the module, in one parameter."""


def factor_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The factors of all modules of a model; those that several modules share come once."""
    found = [
        module.learned_factor for module in model.modules() if isinstance(module, LearnsFactor)
    ]
    return list({id(parameter): parameter for parameter in found}.values())
