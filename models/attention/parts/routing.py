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
from typing import Literal

import torch
from torch import Tensor, nn

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

    weights: Tensor
    """(..., n): one-hot in value; carries the straight-through gradient."""
    gate: Tensor | None
    """(...): the probability of the chosen option, or None where nothing is gated."""
    logits: Tensor
    """(..., n): what the choice is the argmax of."""

    def of_values(self, values: Tensor) -> Tensor:
        """The chosen one of n learnable values, (n,) to (...); not gated.

        Values that differ between heads are (H, 1, n) and the choice is one of (B, H, N).
        """
        return (self.weights * values).sum(dim=-1)

    def gated(self, chosen: Tensor) -> Tensor:
        """Apply the gate to what was chosen, (..., channels)."""
        return chosen if self.gate is None else chosen * self.gate[..., None]


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

    def forward(self, inputs: Tensor) -> Choice:
        """(..., channels) to a choice of (...); computed in float32 at least."""
        (inputs,) = full_precision(inputs)
        weight = self.weight[0] if self.groups == 1 else self.weight
        with torch.autocast(inputs.device.type, enabled=False):
            logits = inputs @ weight.to(inputs.dtype)
        index = logits.argmax(dim=-1, keepdim=True)
        hard = torch.zeros_like(logits).scatter_(-1, index, 1.0)
        straight_through = self.learning.gradient == "straight_through"
        learns = torch.is_grad_enabled()
        balanced = self.training and self.learning.balance_weight > 0
        if balanced and not learns:
            self.use = OptionUse(self._mean_over_tokens(hard), None)
        if straight_through and not learns:
            return Choice(hard, None, logits)
        probabilities = logits.softmax(dim=-1)
        if balanced and learns:
            self.use = OptionUse(
                self._mean_over_tokens(hard), self._mean_over_tokens(probabilities)
            )
        if not straight_through:
            return Choice(hard, probabilities.gather(-1, index).squeeze(-1), logits)
        # The bracket is exactly zero in value, so that the choice stays exactly one-hot.
        return Choice(hard + (probabilities - probabilities.detach()), None, logits)

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
