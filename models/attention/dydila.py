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
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.attention.base import AttentionBlock, AttentionConfig, AttentionShape, ValueConvolution
from models.attention.parts.dynamic import ChosenDifference, ProjectorBank, StaticDifference
from models.attention.parts.norm import WidthNorm
from models.attention.parts.power_kernel import ChosenPower, FixedPower, ReluKernel, share_exponents
from models.attention.parts.products import (
    checked_heads,
    full_precision,
    linear_product,
    merge_heads,
    similarities,
    similarity_sums,
    split_heads,
)
from models.attention.parts.routing import InitialFactors, RouterGradient, RouterLearning

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
    kernel_sharing_roles: Literal["separate", "shared"] = Field(
        default="separate", description="exponents of their own for Q, K, Q', K', or the same ones"
    )
    kernel_per_head: bool = Field(
        default=False, description="exponents and router of its own for each head"
    )
    router_gradient: RouterGradient = "straight_through"
    load_balance_weight: float = Field(
        default=0.0, ge=0, description="of each router's load-balancing loss"
    )
    static_exponent: float = Field(default=3.0, gt=0)
    gamma_init: float = Field(default=3.0, gt=0, description="centre of the initial exponents")
    gamma_spread: float = Field(
        default=0.0, ge=0, description="initial exponents: evenly over gamma_init +- this"
    )
    lambda_init: float = Field(default=0.01, description="centre of the initial lambdas")
    lambda_spread: float = Field(
        default=0.0, ge=0, description="initial lambdas: evenly over lambda_init +- this"
    )
    eps: float = Field(default=1e-8, gt=0)

    @model_validator(mode="after")
    def _exponents_are_positive(self) -> Config:
        if self.gamma_spread >= self.gamma_init:
            raise ValueError(
                f"attention.gamma_spread must be less than attention.gamma_init, so that all "
                f"initial exponents are positive, but {self.gamma_spread} >= {self.gamma_init}"
            )
        return self

    @property
    def router_learning(self) -> RouterLearning:
        """How every router of the block learns."""
        return RouterLearning(self.router_gradient, self.load_balance_weight)


class Attention(AttentionBlock):
    """Kernels, differences and sums over tokens are computed in float32 whatever the autocast."""

    def __init__(self, config: Config, shape: AttentionShape) -> None:
        super().__init__()
        self.config = config
        self.heads = checked_heads(shape.width, config.head_dim)
        self.width = shape.width
        self.tokens = shape.grid[0] * shape.grid[1]
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.query_norm = WidthNorm(shape)
        self.key_norm = WidthNorm(shape)
        self.query_kernel = _kernel(config, self.heads)
        self.key_kernel = _kernel(config, self.heads)
        self.differential = config.differential != "off"
        if self.differential:
            self.redundant_query = _Redundancy(config, shape, self.heads)
            self.redundant_key = _Redundancy(config, shape, self.heads)
        if config.kernel_sharing_roles == "shared":
            share_exponents(self)
        if config.normalizer == "rms":
            self.rms_norm = nn.RMSNorm(config.head_dim, eps=1e-6)
        self.value_convolution = ValueConvolution(shape)
        self.output = nn.Linear(shape.width, shape.width)

    def forward(self, tokens: Tensor) -> Tensor:
        queries, keys, values = self.qkv(tokens).chunk(3, dim=-1)
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
        differenced = similarities(query[:, head], key[:, head])
        match self.config.normalizer:
            case "similarity":
                plain = similarities(plain_query[:, head], plain_key[:, head])
                sums = plain.sum(dim=-1, keepdim=True)
                return differenced / (_without_similarity(sums) + self.config.eps)
            case "difference":
                return differenced / (differenced.sum(dim=-1, keepdim=True) + self.config.eps)
            case "none" | "rms":
                return differenced / self.tokens

    def _features(
        self, tokens: Tensor, queries: Tensor, keys: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Differenced queries and keys, and the pair before the difference: (B, H, N, d) each."""
        queries, keys = full_precision(self.query_norm(queries), self.key_norm(keys))
        plain_query = self.query_kernel(split_heads(queries, self.heads))
        plain_key = self.key_kernel(split_heads(keys, self.heads))
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
                return _without_similarity(similarity_sums(*similarity)) + self.config.eps
            case "difference":
                return similarity_sums(query, key) + self.config.eps
            case "none" | "rms":
                return float(self.tokens)


class _Redundancy(nn.Module):
    """What one side (queries or keys) subtracts from itself."""

    def __init__(self, config: Config, shape: AttentionShape, heads: int) -> None:
        super().__init__()
        self.heads = heads
        learning = config.router_learning
        projectors = config.n_projectors if config.projection == "dynamic" else 1
        self.projectors = ProjectorBank(shape.width, projectors, learning)
        self.norm = WidthNorm(shape)
        self.kernel = _kernel(config, heads)
        self.difference: ChosenDifference | StaticDifference
        if config.differential == "dynamic":
            initial = InitialFactors(
                config.n_differentials, config.lambda_init, config.lambda_spread
            )
            self.difference = ChosenDifference(config.head_dim, initial, learning)
        else:
            self.difference = StaticDifference(config.lambda_init)

    def subtract_from(self, plain: Tensor, tokens: Tensor) -> Tensor:
        """`Q~ - lambda Q'~`; plain (B, H, N, d), tokens (B, N, D)."""
        (redundant,) = full_precision(self.norm(self.projectors(tokens)))
        return self.difference(plain, self.kernel(split_heads(redundant, self.heads)))


def _without_similarity(sums: Tensor) -> Tensor:
    """A token that is similar to none, because the kernel leaves nothing of its query, attends to
    none, as in linear attention without a difference: there is nothing to take a redundancy from,
    and divided by `eps` alone it would be the largest output by far."""
    return sums.masked_fill(sums == 0, torch.inf)


def _kernel(config: Config, heads: int) -> ChosenPower | FixedPower | ReluKernel:
    match config.kernel:
        case "dynamic":
            return ChosenPower(
                config.head_dim,
                InitialFactors(config.n_kernels, config.gamma_init, config.gamma_spread),
                config.router_learning,
                heads if config.kernel_per_head else 1,
            )
        case "static":
            return FixedPower(config.static_exponent)
        case "relu":
            return ReluKernel()
