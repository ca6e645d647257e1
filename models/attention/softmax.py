"""Softmax attention, quadratic in the tokens: `O = softmax(Q K^T / sqrt(d)) V`.

Source: DiT (Peebles and Xie 2023); projections with bias.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from models.attention.base import AttentionBlock, AttentionConfig, AttentionShape
from models.attention.parts.products import full_precision, similarities, split_heads

QUESTION = "softmax attention as in DiT: what does quadratic cost buy?"


class Config(AttentionConfig):
    """Heads are the backbone's own."""

    name: Literal["softmax"] = "softmax"


class Attention(AttentionBlock):
    """Scaled dot-product attention."""

    def __init__(self, config: Config, shape: AttentionShape) -> None:
        super().__init__(shape, shape.heads, qkv_bias=True)

    def forward(self, tokens: Tensor) -> Tensor:
        queries, keys, values = self.project(tokens)
        query, key, value = (split_heads(part, self.heads) for part in (queries, keys, values))
        return self.finish(F.scaled_dot_product_attention(query, key, value), values)

    def attention_weights(self, tokens: Tensor, head: int) -> Tensor:
        query, key = full_precision(
            *(split_heads(part, self.heads)[:, head] for part in self.project(tokens)[:2])
        )
        return torch.softmax(similarities(query, key) / query.shape[-1] ** 0.5, dim=-1)
