"""Dynamic differential linear attention (arXiv 2601.13683), as far as public descriptions fix it.

With `Q, K, V = X W`, a redundancy query and key `Q', K'` from a projector chosen for each token
(dynamic projection), the kernel `phi_g` with an exponent chosen for each token (dynamic measure
kernel) gives `Q~, K~, Q'~, K'~`. The token differential operator subtracts
`Q^_i = Q~_i - lambda_i Q'~_i`, likewise for keys, and `O = Q^ (K^^T V)`, normalised.

The paper's full text was not reachable: every point that it leaves open is a field of `Config`.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.attention.base import AttentionBlock, AttentionConfig, AttentionShape
from models.differential import ChosenDifference, StaticDifference
from models.head_count import checked_heads
from models.linear_product import (
    full_precision,
    linear_product,
    linear_product_flops,
    merge_heads,
    similarity_sums,
    split_heads,
)
from models.measure_kernel import ChosenPower, FixedPower, ReluKernel
from models.projector_bank import ProjectorBank
from models.routing import RouterGradient
from models.value_convolution import ValueConvolution

QUESTION = "dynamic differential linear attention: does mending over-smoothed weights pay?"


class Config(AttentionConfig):
    """The three parts, each dynamic, static or off, and the points the paper leaves open."""

    name: Literal["dydila"] = "dydila"
    head_dim: int = Field(default=32, ge=1)
    projection: Literal["dynamic", "static"] = Field(
        default="dynamic", description="Q', K' from one of n_projectors a token, or from one"
    )
    kernel: Literal["dynamic", "relu", "static"] = Field(
        default="dynamic", description="exponent chosen for each token, plain ReLU, fixed exponent"
    )
    differential: Literal["dynamic", "static", "off"] = Field(
        default="dynamic", description="lambda chosen for each token, one lambda, no difference"
    )
    normalizer: Literal["similarity", "difference", "none", "rms"] = Field(
        default="similarity", description="what the output is divided by"
    )
    n_projectors: int = Field(default=3, ge=1)
    n_kernels: int = Field(default=9, ge=1)
    n_differentials: int = Field(default=9, ge=1)
    router_gradient: RouterGradient = "straight_through"
    static_exponent: float = Field(default=3.0, gt=0)
    gamma_init: float = Field(default=3.0, gt=0)
    lambda_init: float = 0.01
    eps: float = Field(default=1e-8, gt=0)


class Attention(AttentionBlock):
    """Kernels, differences and sums over tokens are computed in float32 whatever the autocast."""

    def __init__(self, config: Config, shape: AttentionShape) -> None:
        super().__init__()
        self.config = config
        self.heads = checked_heads(shape.width, config.head_dim)
        self.width = shape.width
        self.tokens = shape.grid[0] * shape.grid[1]
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.query_kernel = _kernel(config)
        self.key_kernel = _kernel(config)
        self.differential = config.differential != "off"
        if self.differential:
            self.redundant_query = _Redundancy(config, shape.width)
            self.redundant_key = _Redundancy(config, shape.width)
        if config.normalizer == "rms":
            self.rms_norm = nn.RMSNorm(config.head_dim, eps=1e-6)
        self.value_convolution = ValueConvolution(shape)
        self.output = nn.Linear(shape.width, shape.width)

    def forward(self, tokens: Tensor) -> Tensor:
        queries, keys, values = self.qkv(tokens).chunk(3, dim=-1)
        with torch.autocast(tokens.device.type, enabled=False):
            query, key, similarity = self._features(tokens, queries, keys)
            (value,) = full_precision(split_heads(values, self.heads))
            attended = linear_product(query, key, value)
            attended = attended / self._denominator(query, key, similarity)
            if self.config.normalizer == "rms":
                attended = self.rms_norm(attended)
        merged = merge_heads(attended).to(values.dtype)
        return self.output(self.value_convolution(merged, values))

    def attention_weights(self, tokens: Tensor, head: int) -> Tensor:
        queries, keys, _ = self.qkv(tokens).chunk(3, dim=-1)
        query, key, (plain_query, plain_key) = self._features(tokens, queries, keys)
        differenced = query[:, head] @ key[:, head].mT
        plain = plain_query[:, head] @ plain_key[:, head].mT
        row_sums = {
            "similarity": plain.sum(dim=-1, keepdim=True) + self.config.eps,
            "difference": differenced.sum(dim=-1, keepdim=True) + self.config.eps,
            "none": self.tokens,
            "rms": self.tokens,
        }
        return differenced / row_sums[self.config.normalizer]

    def flops(self, batch: int) -> int:
        rows = 2 * batch * self.tokens
        total = rows * self.width * 4 * self.width
        total += linear_product_flops(batch, self.heads, self.tokens, self.config.head_dim)
        total += rows * self.width * (self.query_kernel.options + self.key_kernel.options)
        if self.differential:
            total += rows * self.redundant_query.multiplications
            total += rows * self.redundant_key.multiplications
        return total + self.value_convolution.flops(batch)

    def _features(
        self, tokens: Tensor, queries: Tensor, keys: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Differenced queries and keys, and the pair before the difference: (B, H, N, d) each."""
        query, key = full_precision(*(split_heads(part, self.heads) for part in (queries, keys)))
        plain_query, plain_key = self.query_kernel(query), self.key_kernel(key)
        if not self.differential:
            return plain_query, plain_key, (plain_query, plain_key)
        return (
            self.redundant_query.subtract_from(plain_query, tokens),
            self.redundant_key.subtract_from(plain_key, tokens),
            (plain_query, plain_key),
        )

    def _denominator(
        self, query: Tensor, key: Tensor, similarity: tuple[Tensor, Tensor]
    ) -> Tensor | float:
        match self.config.normalizer:
            case "similarity":
                return similarity_sums(*similarity) + self.config.eps
            case "difference":
                return similarity_sums(query, key) + self.config.eps
            case "none" | "rms":
                return float(self.tokens)


class _Redundancy(nn.Module):
    """What one side (queries or keys) subtracts from itself."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        self.heads = width // config.head_dim
        projectors = config.n_projectors if config.projection == "dynamic" else 1
        self.projectors = ProjectorBank(width, projectors, config.router_gradient)
        self.kernel = _kernel(config)
        self.difference: ChosenDifference | StaticDifference
        if config.differential == "dynamic":
            self.difference = ChosenDifference(
                config.head_dim, config.n_differentials, config.lambda_init, config.router_gradient
            )
        else:
            self.difference = StaticDifference(config.lambda_init)

    def subtract_from(self, plain: Tensor, tokens: Tensor) -> Tensor:
        """`Q~ - lambda Q'~`; plain (B, H, N, d), tokens (B, N, D)."""
        (redundant,) = full_precision(split_heads(self.projectors(tokens), self.heads))
        return self.difference(plain, self.kernel(redundant))

    @property
    def multiplications(self) -> int:
        """Multiply-adds for one token."""
        width = self.projectors.width
        options = self.kernel.options + 2 * self.difference.options
        return self.projectors.multiplications + width * options


def _kernel(config: Config) -> ChosenPower | FixedPower | ReluKernel:
    match config.kernel:
        case "dynamic":
            return ChosenPower(
                config.head_dim, config.n_kernels, config.gamma_init, config.router_gradient
            )
        case "static":
            return FixedPower(config.static_exponent)
        case "relu":
            return ReluKernel()
