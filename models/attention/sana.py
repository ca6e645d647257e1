"""ReLU linear attention: `phi = relu`.

Source: SANA (Xie et al. 2024); its eps is 1e-8, its head dimension 32, its query, key and value
projections have no bias.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from models.attention.base import AttentionConfig, AttentionShape, KernelAttention
from models.attention.parts.products import checked_heads

QUESTION = "ReLU linear attention as in SANA: how much is lost against softmax?"


class Config(AttentionConfig):
    """Fields of SANA's attention."""

    name: Literal["sana"] = "sana"
    head_dim: int = Field(default=32, ge=1)
    eps: float = Field(default=1e-8, gt=0)


class Attention(KernelAttention):
    """Heads of `head_dim` channels each."""

    def __init__(self, config: Config, shape: AttentionShape) -> None:
        heads = checked_heads(shape.width, config.head_dim)
        super().__init__(shape, heads, qkv_bias=False, eps=config.eps)

    def kernel(self, rows: Tensor) -> Tensor:
        return rows.relu()
