"""The feed-forward part of a block."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class FeedForward(nn.Module):
    """(B, N, D) to (B, N, D): Linear, tanh-GELU, Linear (DiT)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(F.gelu(self.hidden(tokens), approximate="tanh"))
