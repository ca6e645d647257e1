"""Linear attention with a kernel function and the usual normaliser.

`O_i = phi(q_i) S / (phi(q_i) . z + eps)` with `S = sum_j phi(k_j)^T v_j` and
`z = sum_j phi(k_j)`, for each head (Katharopoulos et al. 2020). Variants differ in phi, in the
number of heads and in the bias of the projections.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from models.attention.base import AttentionBlock, AttentionShape, ValueConvolution
from models.attention.parts.norm import WidthNorm
from models.attention.parts.products import (
    full_precision,
    linear_product,
    merge_heads,
    similarities,
    similarity_sums,
    split_heads,
)


class KernelAttention(AttentionBlock):
    """Everything but phi; sums over tokens are accumulated in float32 whatever the autocast.

    Args:
        shape: the block's surroundings.
        heads: a divisor of the width.
        qkv_bias: whether the query, key and value projections have a bias.
        eps: added to the denominator.
    """

    def __init__(self, shape: AttentionShape, heads: int, qkv_bias: bool, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.eps = eps
        self.width = shape.width
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=qkv_bias)
        self.query_norm = WidthNorm(shape)
        self.key_norm = WidthNorm(shape)
        self.value_convolution = ValueConvolution(shape)
        self.output = nn.Linear(shape.width, shape.width)

    @abstractmethod
    def kernel(self, rows: Tensor) -> Tensor:
        """Phi of queries or keys, (B, N, D) before the head split; not negative."""

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, values = self._projected(tokens)
        (value,) = full_precision(split_heads(values, self.heads))
        attended = linear_product(query, key, value) / (similarity_sums(query, key) + self.eps)
        merged = merge_heads(attended).to(values.dtype)
        return self.output(self.value_convolution(merged, values))

    def attention_weights(self, tokens: Tensor, head: int) -> Tensor:
        query, key, _ = self._projected(tokens)
        weights = similarities(query[:, head], key[:, head])
        return weights / (weights.sum(dim=-1, keepdim=True) + self.eps)

    def _projected(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Phi of queries and of keys, (B, H, N, d) each, and values (B, N, D)."""
        queries, keys, values = self.qkv(tokens).chunk(3, dim=-1)
        queries, keys = full_precision(self.query_norm(queries), self.key_norm(keys))
        query = split_heads(self.kernel(queries), self.heads)
        key = split_heads(self.kernel(keys), self.heads)
        return query, key, values
