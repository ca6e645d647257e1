"""Softmax attention, quadratic in the tokens: `O = softmax(Q K^T / sqrt(d)) V`.

Source: DiT (Peebles and Xie 2023); projections with bias.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention.base import AttentionBlock, AttentionConfig, AttentionShape, ValueConvolution
from models.attention.parts.norm import WidthNorm
from models.attention.parts.products import (
    checked_head_dim,
    full_precision,
    merge_heads,
    similarities,
    split_heads,
)

QUESTION = "softmax attention as in DiT: what does quadratic cost buy?"


class Config(AttentionConfig):
    """Heads are the backbone's own."""

    name: Literal["softmax"] = "softmax"


class Attention(AttentionBlock):
    """Scaled dot-product attention."""

    def __init__(self, config: Config, shape: AttentionShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.width = shape.width
        self.head_dim = checked_head_dim(shape.width, shape.heads)
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.query_norm = WidthNorm(shape)
        self.key_norm = WidthNorm(shape)
        self.value_convolution = ValueConvolution(shape)
        self.output = nn.Linear(shape.width, shape.width)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, values = self._projected(tokens)
        attended = F.scaled_dot_product_attention(query, key, split_heads(values, self.heads))
        return self.output(self.value_convolution(merge_heads(attended), values))

    def attention_weights(self, tokens: Tensor, head: int) -> Tensor:
        query, key = full_precision(*(part[:, head] for part in self._projected(tokens)[:2]))
        return torch.softmax(similarities(query, key) / self.head_dim**0.5, dim=-1)

    def _projected(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, (B, H, N, d) each, and values (B, N, D)."""
        queries, keys, values = self.qkv(tokens).chunk(3, dim=-1)
        query = split_heads(self.query_norm(queries), self.heads)
        key = split_heads(self.key_norm(keys), self.heads)
        return query, key, values
