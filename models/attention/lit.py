"""ReLU linear attention with few heads: `phi = relu`.

Source: public descriptions of LiT (Linear Diffusion Transformers, 2025), which finds that few heads
do as well as many and adds a depth-wise convolution of V. That it keeps the biases of DiT's
projections, whose weights it inherits, and the default of 2 heads for every width are our choices.

The convolution of V is the backbone's `value_convolution`, not a field of this variant: alone it
improves plain linear attention already, so a comparison in which only one row had it would measure
the convolution. With `model.value_convolution.size: 5` this is LiT's block; with 0 it is what few
heads do by themselves.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from models.attention.base import AttentionConfig, AttentionShape, KernelAttention

QUESTION = "ReLU linear attention with few heads as in LiT: are many heads needed?"


class Config(AttentionConfig):
    """Fields of LiT's attention."""

    name: Literal["lit"] = "lit"
    heads: int = Field(default=2, ge=1, description="few; the backbone's heads are not used")
    eps: float = Field(default=1e-8, gt=0)


class Attention(KernelAttention):
    """Few heads, whatever the backbone has."""

    def __init__(self, config: Config, shape: AttentionShape) -> None:
        super().__init__(shape, config.heads, qkv_bias=True, eps=config.eps)

    def kernel(self, rows: Tensor) -> Tensor:
        return rows.relu()
