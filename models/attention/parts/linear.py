"""Linear attention with a kernel function and the usual normaliser.

`O_i = phi(q_i) S / (phi(q_i) . z + eps)` with `S = sum_j phi(k_j)^T v_j` and
`z = sum_j phi(k_j)`, for each head (Katharopoulos et al. 2020). Variants differ in phi, in the
number of heads and in the bias of the projections.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from models.attention.base import AttentionBlock, AttentionShape
from models.attention.parts.products import (
    full_precision,
    linear_product,
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
        super().__init__(shape, heads, qkv_bias)
        self.eps = eps

    @abstractmethod
    def kernel(self, rows: Tensor) -> Tensor:
        """Phi of queries or keys, (B, N, D) before the head split; not negative."""

    def forward(self, tokens: Tensor) -> Tensor:
        queries, keys, values = self.project(tokens)
        query, key = self._features(queries, keys)
        (value,) = full_precision(split_heads(values, self.heads))
        attended = linear_product(query, key, value, self.sum_precision)
        attended = attended / (similarity_sums(query, key) + self.eps)
        return self.finish(attended, values)

    def attention_weights(self, tokens: Tensor, head: int) -> Tensor:
        queries, keys, _ = self.project(tokens)
        query, key = self._features(queries, keys)
        weights = similarities(query[:, head], key[:, head])
        return weights / (weights.sum(dim=-1, keepdim=True) + self.eps)

    def _features(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Phi of queries and of keys, (B, N, D) to (B, H, N, d) each."""
        return tuple(split_heads(self.kernel(part), self.heads) for part in full_precision(*parts))
