"""The transformer block with adaLN-Zero modulation (DiT, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.initialization import SelfInitialized


def modulate(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """`x (1 + scale) + shift`, with tokens (B, N, D) and shift and scale (B, D)."""
    return torch.addcmul(shift[:, None], tokens, 1 + scale[:, None])


class Modulation(nn.Module, SelfInitialized):
    """The condition (B, D) to `parts` vectors (B, D) each, all zero at first."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(width, parts * width)

    def initialize(self, generator: torch.Generator) -> None:
        nn.init.zeros_(self.linear.weight)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        return self.linear(F.silu(condition)).chunk(self.parts, dim=-1)


class Block(nn.Module):
    """(B, N, D) and a condition (B, D) to (B, N, D); receives its attention ready-made."""

    def __init__(self, width: int, attention: nn.Module, feedforward: nn.Module) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = attention
        self.feedforward_norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.feedforward = feedforward
        self.modulation = Modulation(width, 6)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(condition)
        attended = self.attention(modulate(self.attention_norm(tokens), shift, scale))
        tokens = tokens + gate[:, None] * attended
        fed = self.feedforward(modulate(self.feedforward_norm(tokens), mlp_shift, mlp_scale))
        return tokens + mlp_gate[:, None] * fed
