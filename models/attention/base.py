"""What every attention variant is, and what all of them share.

A variant is one module in this package. It defines three names:

`QUESTION`   one line that says what the variant is,
`Config`     a frozen `AttentionConfig` whose `name` is the module's name,
`Attention`  a final subclass of `AttentionBlock` built from `(Config, AttentionShape)`.

Everything outside the attention block is the same for all variants, so a block receives tokens of
shape (B, N, D) and returns tokens of the same shape, projections included.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.attention.parts.products import (
    SumPrecision,
    full_precision,
    linear_product,
    merge_heads,
    similarities,
    similarity_sums,
    split_heads,
)
from models.errors import UserError
from models.randomness import SelfInitialized


class ValueConvolutionConfig(BaseModel):
    """The depth-wise convolution of V that is added before the output projection.

    It belongs to the backbone's configuration, not to a variant's: alone it improves plain linear
    attention, so a fair comparison gives it to every variant or to none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    size: int = Field(ge=0, le=15, description="odd kernel size in tokens; 0 switches it off")
    initialization: Literal["identity", "zero", "random"]


@dataclass(frozen=True)
class AttentionShape:
    """What a backbone tells an attention block about its surroundings."""

    width: int
    """D, the channels of a token."""
    heads: int
    """The backbone's own number of heads, for variants that do not choose theirs."""
    grid: tuple[int, int]
    """Rows and columns of the token grid; N = rows * columns."""
    value_convolution: ValueConvolutionConfig
    qk_norm: bool
    """Whether queries and keys pass an RMSNorm over all D channels before the head split."""
    sum_precision: SumPrecision = "float32"
    """Of the products that sum over tokens in linear attention."""


class AttentionConfig(BaseModel):
    """Fields that only one variant has; `name` is the module's name."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    name: str


class AttentionBlock(nn.Module, ABC):
    """Tokens (B, N, D) to tokens (B, N, D).

    Queries, keys and values come from one projection, and the output is
    `output(value_convolution(heads side by side, values))`, where a head is `A @ v` of the values.

    Args:
        shape: the block's surroundings.
        heads: H, a divisor of D.
        qkv_bias: whether the projection to queries, keys and values has a bias.

    Raises:
        UserError: the heads do not divide the width.
    """

    def __init__(self, shape: AttentionShape, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        if shape.width % heads:
            raise UserError(
                f"{heads} heads do not divide the width {shape.width}: "
                f"{shape.width / heads:g} a head"
            )
        self.width = shape.width
        self.heads = heads
        self.sum_precision = shape.sum_precision
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=qkv_bias)
        self.query_norm = WidthNorm(shape)
        self.key_norm = WidthNorm(shape)
        self.value_convolution = ValueConvolution(shape)
        self.output = nn.Linear(shape.width, shape.width)

    @abstractmethod
    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D), after the output projection; N is rows times columns."""

    @abstractmethod
    def attention_weights(self, tokens: Tensor, head: int) -> Tensor:
        """The matrix `A` (B, N, N) of one head, from 0, such that the head's output is `A @ v`.

        It is the naive twin of the fast path and what the oversmoothing probe looks at. Linear
        variants materialise it; rows need not sum to one, nor be positive.
        """

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, normalised where the backbone asks for it, and values: (B, N, D)."""
        queries, keys, values = self.qkv(tokens).chunk(3, dim=-1)
        return self.query_norm(queries), self.key_norm(keys), values

    def finish(self, attended: Tensor, values: Tensor) -> Tensor:
        """The output (B, N, D) of heads (B, H, N, d), `A @ v` each, and of values (B, N, D)."""
        merged = merge_heads(attended).to(values.dtype)
        return self.output(self.value_convolution(merged, values))


class KernelAttention(AttentionBlock):
    """Linear attention with a kernel function phi and the usual normaliser.

    `O_i = phi(q_i) S / (phi(q_i) . z + eps)` with `S = sum_j phi(k_j)^T v_j` and
    `z = sum_j phi(k_j)`, for each head (Katharopoulos et al. 2020); sums over tokens are
    accumulated in float32 whatever the autocast. Variants differ in phi, in the number of heads and
    in the bias of the projections.
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


class WidthNorm(nn.Module):
    """RMSNorm over all D channels of queries or keys (B, N, D), before they are split into heads.

    Computed in float32 whatever the autocast; without `qk_norm` it changes nothing. Source: SANA,
    where it is off by default and its eps is 1e-5.
    """

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(shape.width, eps=1e-5) if shape.qk_norm else None

    def forward(self, tokens: Tensor) -> Tensor:
        if self.norm is None:
            return tokens
        (full,) = full_precision(tokens)
        return self.norm(full).to(tokens.dtype)


class ValueConvolution(nn.Module, SelfInitialized):
    """Adds the convolution of the values (B, N, D), laid out on the token grid, to (B, N, D).

    It gives linear attention its locality back (FLatten, LiT; MHLA starts it at the identity). With
    size 0 it has no parameters and adds nothing.
    """

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.grid = shape.grid
        self.initialization = shape.value_convolution.initialization
        size = shape.value_convolution.size
        if size and size % 2 == 0:
            raise UserError(f"model.value_convolution.size must be odd or 0, but is {size}")
        self.size = size
        if size:
            self.convolution = nn.Conv2d(
                shape.width, shape.width, size, padding=size // 2, groups=shape.width
            )

    def initialize(self, generator: torch.Generator) -> None:
        if not self.size:
            return
        weight, bound = self.convolution.weight, self.size**-1.0
        match self.initialization:
            case "random":
                nn.init.uniform_(weight, -bound, bound, generator=generator)
            case "identity":
                nn.init.dirac_(weight, groups=len(weight))
            case "zero":
                nn.init.zeros_(weight)

    def forward(self, attended: Tensor, values: Tensor) -> Tensor:
        if not self.size:
            return attended
        return attended + convolve(self.convolution, values, self.grid, "the convolution of V")


def convolve(convolution: nn.Conv2d, tokens: Tensor, grid: tuple[int, int], name: str) -> Tensor:
    """A convolution of tokens (B, N, C), laid out on their grid; `name` is what refuses other N."""
    rows, columns = grid
    if tokens.shape[1] != rows * columns:
        raise UserError(
            f"{name} is made for {rows}x{columns} = {rows * columns} tokens, "
            f"but got {tokens.shape[1]}"
        )
    image = tokens.unflatten(1, grid).permute(0, 3, 1, 2)
    return convolution(image).permute(0, 2, 3, 1).flatten(1, 2)
