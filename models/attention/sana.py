"""ReLU linear attention.

`O_i = relu(q_i) S / (relu(q_i) . z + eps)` with `S = sum_j relu(k_j)^T v_j` and
`z = sum_j relu(k_j)`. Source: SANA (Xie et al. 2024); its eps is 1e-8, its head dimension 32, its
query, key and value projections have no bias.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.attention.base import AttentionBlock, AttentionConfig, AttentionShape
from models.head_count import checked_heads
from models.linear_product import (
    full_precision,
    linear_product,
    linear_product_flops,
    merge_heads,
    similarity_sums,
    split_heads,
)
from models.value_convolution import ValueConvolution

QUESTION = "ReLU linear attention as in SANA: how much is lost against softmax?"


class Config(AttentionConfig):
    """Fields of SANA's attention."""

    name: Literal["sana"] = "sana"
    head_dim: int = Field(default=32, ge=1)
    eps: float = Field(default=1e-8, gt=0)


class Attention(AttentionBlock):
    """Sums over tokens are accumulated in float32 whatever the autocast."""

    def __init__(self, config: Config, shape: AttentionShape) -> None:
        super().__init__()
        self.eps = config.eps
        self.head_dim = config.head_dim
        self.heads = checked_heads(shape.width, config.head_dim)
        self.width = shape.width
        self.tokens = shape.grid[0] * shape.grid[1]
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.value_convolution = ValueConvolution(shape)
        self.output = nn.Linear(shape.width, shape.width)

    def forward(self, tokens: Tensor) -> Tensor:
        queries, keys, values = self.qkv(tokens).chunk(3, dim=-1)
        with torch.autocast(tokens.device.type, enabled=False):
            query, key, value = full_precision(
                *(split_heads(part, self.heads) for part in (queries, keys, values))
            )
            query, key = query.relu(), key.relu()
            attended = linear_product(query, key, value)
            attended = attended / (similarity_sums(query, key) + self.eps)
        merged = merge_heads(attended).to(values.dtype)
        return self.output(self.value_convolution(merged, values))

    def attention_weights(self, tokens: Tensor, head: int) -> Tensor:
        queries, keys, _ = self.qkv(tokens).chunk(3, dim=-1)
        query, key = full_precision(
            *(split_heads(part, self.heads)[:, head].relu() for part in (queries, keys))
        )
        similarity = query @ key.mT
        return similarity / (similarity.sum(dim=-1, keepdim=True) + self.eps)

    def flops(self, batch: int) -> int:
        projections = 2 * batch * self.tokens * self.width * 4 * self.width
        products = linear_product_flops(batch, self.heads, self.tokens, self.head_dim)
        return projections + products + self.value_convolution.flops(batch)
