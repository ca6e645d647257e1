"""Choosing one of n options for each token, hard in the forward pass.

The choice is `argmax_m (z R)_m`. A hard choice has no gradient, so the router learns either
straight-through over the softmax of its logits, or through a gate: what was chosen is multiplied by
its probability. Source of the choice itself: public descriptions of DyDiLA (arXiv 2601.13683);
the gradient is our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.initialization import SelfInitialized

RouterGradient = Literal["straight_through", "gate"]


@dataclass(frozen=True)
class Choice:
    """What a router chose for each token."""

    weights: Tensor
    """(..., n): one-hot in value; carries the straight-through gradient."""
    gate: Tensor | None
    """(...): the probability of the chosen option, or None where nothing is gated."""

    def of_values(self, values: Tensor) -> Tensor:
        """The chosen one of n learnable values, (n,) to (...); not gated."""
        return (self.weights * values).sum(dim=-1)

    def gated(self, chosen: Tensor) -> Tensor:
        """Apply the gate to what was chosen, (..., channels)."""
        return chosen if self.gate is None else chosen * self.gate[..., None]


class Router(nn.Module, SelfInitialized):
    """Chooses one of `options` by a linear map of the input.

    Args:
        channels: of the input.
        options: n.
        gradient: how the router learns.
        groups: 1 shares one map; H has one for each head of an input (B, H, N, channels).
    """

    def __init__(
        self, channels: int, options: int, gradient: RouterGradient, groups: int = 1
    ) -> None:
        super().__init__()
        self.gradient = gradient
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(groups, channels, options))

    def initialize(self, generator: torch.Generator) -> None:
        for group in self.weight:
            nn.init.xavier_uniform_(group, generator=generator)

    def forward(self, inputs: Tensor) -> Choice:
        """(..., channels) to a choice of (...); computed in float32 at least."""
        weight = self.weight[0] if self.groups == 1 else self.weight
        logits = inputs @ weight.to(inputs.dtype)
        index = logits.argmax(dim=-1, keepdim=True)
        hard = torch.zeros_like(logits).scatter_(-1, index, 1.0)
        if not torch.is_grad_enabled() and self.gradient == "straight_through":
            return Choice(hard, None)
        probabilities = logits.softmax(dim=-1)
        if self.gradient == "gate":
            return Choice(hard, probabilities.gather(-1, index).squeeze(-1))
        # The bracket is exactly zero in value, so that the choice stays exactly one-hot.
        return Choice(hard + (probabilities - probabilities.detach()), None)
