"""Choosing one of n options for each token, hard in the forward pass.

The choice is `argmax_m (z R)_m`. A hard choice has no gradient, so the router learns either
straight-through over the softmax of its logits, or through a gate: what was chosen is multiplied by
its probability. Source of the choice itself: public descriptions of DyDiLA (arXiv 2601.13683);
the gradient is our choice.

Exponents and lambdas are factors: learnable scalars that a router chooses from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.attention.parts.products import full_precision
from models.initialization import SelfInitialized

RouterGradient = Literal["straight_through", "gate"]


@dataclass(frozen=True)
class RouterLearning:
    """How a router learns."""

    gradient: RouterGradient
    balance_weight: float
    """Weight of the load-balancing loss; 0 leaves it out."""


@dataclass(frozen=True)
class Choice:
    """What a router chose for each token."""

    logits: Tensor
    """(..., n): what the choice is the argmax of."""
    index: Tensor
    """(...): the option chosen."""
    gradient: RouterGradient
    """How what was chosen hands a gradient to the logits."""

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

        Values that differ between heads are (H, 1, n) and the choice is one of (B, H, N).
        """
        if values.dim() > 1:
            return (self.weights * values).sum(dim=-1)
        if self.gradient == "gate" or not self.logits.requires_grad:
            return values[self.index]
        chosen: Tensor = _ChosenValue.apply(self.logits, values, self.index)
        return chosen

    def gated(self, chosen: Tensor) -> Tensor:
        """Apply the gate to what was chosen, (..., channels)."""
        if self.gradient == "straight_through":
            return chosen
        gate = self.logits.softmax(dim=-1).gather(-1, self.index[..., None])
        return chosen * gate


def _first_largest(options_first: Tensor) -> Tensor:
    """Argmax over the first dimension, (n, ...) to (...), the first one where several are equal.

    By two maxima of whole rows, which takes a third of `argmax`'s time on a CPU.
    """
    options = len(options_first)
    ranks = torch.arange(options, 0, -1, device=options_first.device, dtype=options_first.dtype)
    is_largest = options_first == options_first.amax(dim=0)
    first = (is_largest * ranks.view(-1, *[1] * (options_first.dim() - 1))).amax(dim=0)
    return (options - first).long().clamp_max_(options - 1)


class _ChosenValue(torch.autograd.Function):
    """`values[index]`, with the gradient of `softmax(logits) @ values` to the logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, values: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(logits, values, index)
        return values[index]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        logits, values, index = ctx.saved_tensors
        # Options first, as the router lays them out: reductions over the last of nine columns are
        # several times as slow on a CPU.
        options_first = logits.movedim(-1, 0)
        probabilities = (options_first - options_first.amax(dim=0)).exp_()
        probabilities.div_(probabilities.sum(dim=0))
        column = values.reshape(-1, *[1] * index.dim())
        mean = (probabilities * column).sum(dim=0)
        to_logits = (column - mean).mul_(probabilities).mul_(gradient)
        to_values = torch.zeros_like(values)
        to_values.index_add_(0, index.flatten(), gradient.flatten())
        return to_logits.movedim(0, -1), to_values, None


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
    """Chooses one of `options` by a linear map of the input.

    Args:
        channels: of the input.
        options: n.
        learning: how the router learns.
        groups: 1 shares one map; H has one for each head of an input (B, H, N, channels).
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
        """Tensors (..., c), whose channels side by side are the router's, to a choice of (...).

        Computed in float32 at least.
        """
        parts = full_precision(*inputs)
        weight = self.weight.to(parts[0].dtype)
        with torch.autocast(parts[0].device.type, enabled=False):
            if self.groups > 1:
                logits = torch.cat(parts, dim=-1) @ weight
            else:
                logits = self._shared_logits(parts, weight[0])
        index = _first_largest(logits.detach().movedim(-1, 0))
        choice = Choice(logits, index, self.learning.gradient)
        if self.training and self.learning.balance_weight > 0:
            shares = nn.functional.one_hot(index, self.options).to(logits.dtype)
            means = logits.softmax(dim=-1) if torch.is_grad_enabled() else None
            self.use = OptionUse(
                self._mean_over_tokens(shares),
                None if means is None else self._mean_over_tokens(means),
            )
        return choice

    def _shared_logits(self, parts: Sequence[Tensor], weight: Tensor) -> Tensor:
        """(..., n), with the options first in memory."""
        lead = parts[0].shape[:-1]
        # Heads come as a view of tokens (B, N, H, d), whose rows lie one after the other.
        swapped = len(lead) == 3
        logits: Tensor | None = None
        for part, share in zip(
            parts, weight.split([part.shape[-1] for part in parts]), strict=True
        ):
            rows = part.transpose(1, 2) if swapped else part
            term = _Logits.apply(rows.reshape(-1, rows.shape[-1]), share)
            logits = term if logits is None else logits + term
        assert logits is not None
        if swapped:
            batch, heads, tokens = lead
            return logits.view(-1, batch, tokens, heads).permute(1, 3, 2, 0)
        return logits.view(-1, *lead).movedim(0, -1)

    def _mean_over_tokens(self, values: Tensor) -> Tensor:
        """(..., n) to (n,); where each head has a map of its own, (B, H, N, n) to (H, n)."""
        grouped = self.groups > 1
        pooled = [axis for axis in range(values.dim() - 1) if not (grouped and axis == 1)]
        return values.mean(dim=pooled)


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
