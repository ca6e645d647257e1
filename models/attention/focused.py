"""Focused linear attention: `phi(z) = ||relu(z)|| relu(z)^p / ||relu(z)^p||`.

Tokens are divided by a learned softplus scale of each channel first, the same for queries and keys,
and the norms span all D channels, before the split into heads. Source: FLatten (Han et al. 2023)
and its public code.

Five things differ from that code:

1. The depth-wise convolution of V is the backbone's `value_convolution`, since alone it improves
   plain linear attention already and a fair comparison gives it to every variant or to none.
2. That convolution has D channels; FLatten's has those of one head, which all heads share.
3. The learned position embedding of the keys is left out, because the backbone has one.
4. FLatten adds 1e-6 to every ReLU against rows of zeros; our kernel keeps those finite itself, and
   they attend to nothing.
5. FLatten adds its 1e-6 to the mean of a query's similarities, which is N times 1e-6 on their sum;
   `eps` is added to the sum.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention.base import AttentionConfig, AttentionShape, KernelAttention
from models.attention.parts.power_kernel import FixedPower

QUESTION = "focused linear attention as in FLatten: do sharper kernels close the gap?"


class Config(AttentionConfig):
    """Fields of FLatten's attention."""

    name: Literal["focused"] = "focused"
    focusing_factor: float = Field(default=3.0, gt=0, description="the exponent p")
    eps: float = Field(default=1e-6, gt=0)


class Attention(KernelAttention):
    """Heads are the backbone's own; projections with bias."""

    def __init__(self, config: Config, shape: AttentionShape) -> None:
        super().__init__(shape, shape.heads, qkv_bias=True, eps=config.eps)
        self.channel_scale = nn.Parameter(torch.zeros(shape.width))
        self.power = FixedPower(config.focusing_factor)

    def kernel(self, rows: Tensor) -> Tensor:
        return self.power(rows / F.softplus(self.channel_scale))
