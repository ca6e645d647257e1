"""The feed-forward part of a block."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import UserError
from models.initialization import SelfInitialized

FeedForwardKind = Literal["mlp", "mix"]


def build_feedforward(
    kind: FeedForwardKind, width: int, hidden: int, grid: tuple[int, int]
) -> FeedForward | MixFeedForward:
    """The feed-forward part that a configuration names, with `hidden` channels inside."""
    match kind:
        case "mlp":
            return FeedForward(width, hidden)
        case "mix":
            return MixFeedForward(width, hidden, grid)


class FeedForward(nn.Module):
    """(B, N, D) to (B, N, D): Linear, tanh-GELU, Linear (DiT)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(F.gelu(self.hidden(tokens), approximate="tanh"))


class MixFeedForward(nn.Module, SelfInitialized):
    """(B, N, D) to (B, N, D): SANA's Mix-FFN, which mixes neighbouring tokens.

    Linear to 2 hidden channels, SiLU, 3x3 depth-wise convolution on the token grid, a gated linear
    unit `x SiLU(gate)`, Linear without bias. SANA sets `hidden` to 2.5 D and has no position
    embedding beside it. The depth-wise weights start uniform in +-1/3, torch's default for their
    fan-in of 9.
    """

    def __init__(self, width: int, hidden: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.hidden = nn.Linear(width, 2 * hidden)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.output = nn.Linear(hidden, width, bias=False)

    def initialize(self, generator: torch.Generator) -> None:
        nn.init.uniform_(self.depthwise.weight, -1 / 3, 1 / 3, generator=generator)
        assert self.depthwise.bias is not None
        nn.init.zeros_(self.depthwise.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        rows, columns = self.grid
        if tokens.shape[1] != rows * columns:
            raise UserError(
                f"the Mix-FFN is made for {rows}x{columns} = {rows * columns} tokens, "
                f"but got {tokens.shape[1]}"
            )
        # (B, N, 2 hidden) -> (B, 2 hidden, rows, columns) and back
        image = F.silu(self.hidden(tokens)).unflatten(1, self.grid).permute(0, 3, 1, 2)
        mixed = self.depthwise(image).permute(0, 2, 3, 1).flatten(1, 2)
        content, gate = mixed.chunk(2, dim=-1)
        return self.output(content * F.silu(gate))
