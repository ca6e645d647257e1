"""What the transformer knows besides the pixels: position, timestep and label.

Source: DiT (Peebles and Xie 2023) and its public code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.randomness import SelfInitialized


def sinusoid(values: Tensor, channels: int) -> Tensor:
    """Cosines, then sines, (B, channels) of values (B,), in float32, or float64 where they are.

    Frequencies are spaced geometrically; wavelengths run from 2 pi to almost 2 pi times 10,000.
    """
    dtype = torch.promote_types(values.dtype, torch.float32)
    half = channels // 2
    exponents = torch.arange(half, dtype=dtype, device=values.device) / half
    angles = values.to(dtype)[:, None] * torch.exp(-math.log(10_000.0) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def position_embedding(width: int, grid: tuple[int, int]) -> Tensor:
    """The fixed two-dimensional sine-cosine embedding, (N, D), rows of the grid first.

    The first half of the channels encodes the column and the second half the row, each as sines
    followed by cosines (MAE and DiT).
    """
    quarter = width // 4
    frequencies = 10_000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, columns = torch.meshgrid(
        torch.arange(grid[0], dtype=torch.float64),
        torch.arange(grid[1], dtype=torch.float64),
        indexing="ij",
    )
    parts = []
    for coordinate in (columns, rows):
        angles = coordinate.reshape(-1, 1) * frequencies
        parts += [angles.sin(), angles.cos()]
    return torch.cat(parts, dim=1).float()


class TimestepEmbedding(nn.Module, SelfInitialized):
    """Timesteps (B,) to (B, D): a 256-channel sinusoid through Linear-SiLU-Linear."""

    CHANNELS = 256

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(self.CHANNELS, width)
        self.output = nn.Linear(width, width)

    def initialize(self, generator: torch.Generator) -> None:
        for layer in (self.hidden, self.output):
            nn.init.normal_(layer.weight, std=0.02, generator=generator)

    def forward(self, timesteps: Tensor) -> Tensor:
        waves = sinusoid(timesteps, self.CHANNELS).to(self.hidden.weight.dtype)
        return self.output(F.silu(self.hidden(waves)))


class LabelEmbedding(nn.Module, SelfInitialized):
    """Labels (B,) to (B, D). The last of the num_classes + 1 rows is the null label."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_classes + 1, width)

    def initialize(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.table.weight, std=0.02, generator=generator)

    def forward(self, labels: Tensor) -> Tensor:
        return self.table(labels)
