"""Dynamic differential linear attention (arXiv 2601.13683), as far as public descriptions fix it.

With `Q, K, V = X W`, a redundancy query and key `Q', K'` from a projector chosen for each token
(dynamic projection), the kernel `phi_g` with an exponent chosen for each token (dynamic measure
kernel) gives `Q~, K~, Q'~, K'~`. The token differential operator subtracts
`Q^_i = Q~_i - lambda_i Q'~_i`, likewise for keys, and `O = Q^ (K^^T V)`, normalised.

The paper's full text was not reachable: every point that it leaves open is a field of `Config`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.attention.base import AttentionBlock, AttentionConfig, AttentionShape, WidthNorm
from models.attention.parts.dynamic import ChosenDifference, ProjectorBank, StaticDifference
from models.attention.parts.power_kernel import (
    ChosenPower,
    ExponentMap,
    FixedPower,
    share_exponents,
)
from models.attention.parts.products import (
    checked_heads,
    full_precision,
    linear_product,
    similarities,
    similarity_sums,
    split_heads,
)
from models.attention.parts.routing import InitialFactors, RouterGradient, RouterLearning

QUESTION = "dynamic differential linear attention: does mending over-smoothed weights pay?"


MOST_CHOICES = 4096
"""Projectors, exponents or lambdas that a token can choose from: far more than anybody tries, and
few enough for a tensor of them to have a size that PyTorch can count."""


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
    normalizer: Literal["similarity", "absolute", "unit", "difference", "none", "rms"] = Field(
        default="similarity",
        description="the sum of similarities before the difference, a bound on the sum of absolute "
        "ones after it, the first with rows restored to 1, the signed sum, N, or N and an RMSNorm",
    )
    n_projectors: int = Field(default=3, ge=1, le=MOST_CHOICES)
    n_kernels: int = Field(default=9, ge=1, le=MOST_CHOICES)
    n_differentials: int = Field(default=9, ge=1, le=MOST_CHOICES)
    kernel_sharing_roles: Literal["separate", "shared"] = Field(
        default="separate", description="exponents of their own for Q, K, Q', K', or the same ones"
    )
    kernel_per_head: bool = Field(
        default=False, description="exponents and router of its own for each head"
    )
    router_gradient: RouterGradient = Field(
        default="straight_through",
        description="gate multiplies what was chosen by its probability: Q', Q~ and lambda too",
    )
    load_balance_weight: float = Field(
        default=0.0, ge=0, description="of each router's load-balancing loss"
    )
    static_exponent: float = Field(default=3.0, gt=0)
    gamma_init: float = Field(default=3.0, gt=0, description="centre of the initial exponents")
    gamma_spread: float = Field(
        default=0.0, ge=0, description="initial exponents: evenly over gamma_init +- this"
    )
    gamma_floor: float = Field(
        default=1.0, ge=0.1, description="below all exponents; under 1 derivatives are unbounded"
    )
    gamma_map: Literal["softplus", "exp"] = Field(
        default="softplus",
        description="from what is learned to exponents, above the floor",
    )
    lambda_init: float = Field(default=0.01, description="centre of the initial lambdas")
    lambda_spread: float = Field(
        default=0.0, ge=0, description="initial lambdas: evenly over lambda_init +- this"
    )
    eps: float = Field(default=1e-8, gt=0)

    @model_validator(mode="after")
    def _exponents_start_above_the_floor(self) -> Config:
        least = self.gamma_init - self.gamma_spread
        if least < self.gamma_floor:
            raise ValueError(
                f"attention.gamma_init - attention.gamma_spread, the least initial exponent, must "
                f"not lie below attention.gamma_floor, but {least:g} < {self.gamma_floor:g}"
            )
        return self

    @property
    def router_learning(self) -> RouterLearning:
        return RouterLearning(self.router_gradient, self.load_balance_weight)


class Attention(AttentionBlock):
    """Kernels, differences and sums over tokens are computed in float32 whatever the autocast."""

    def __init__(self, config: Config, shape: AttentionShape) -> None:
        super().__init__(shape, checked_heads(shape.width, config.head_dim), qkv_bias=False)
        self.config = config
        self.tokens = shape.grid[0] * shape.grid[1]
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

    def forward(self, tokens: Tensor) -> Tensor:
        queries, keys, values = self.project(tokens)
        query, key = self._features(tokens, queries, keys)
        (value,) = full_precision(split_heads(values, self.heads))
        denominator = self._denominator(query, key, similarity_sums)
        attended = linear_product(query.differenced, key.differenced, value, self.sum_precision)
        attended = attended / denominator
        if self.config.normalizer == "unit":
            sums = similarity_sums(query.differenced, key.differenced) / denominator
            attended = attended + (1 - sums) * value.mean(dim=-2, keepdim=True)
        if self.config.normalizer == "rms":
            attended = self.rms_norm(attended)
        return self.finish(attended, values)

    def attention_weights(self, tokens: Tensor, head: int) -> Tensor:
        queries, keys, _ = self.project(tokens)
        query, key = (side.of_head(head) for side in self._features(tokens, queries, keys))
        weights = similarities(query.differenced, key.differenced)
        weights = (weights / self._denominator(query, key, _materialised_sums)).squeeze(1)
        if self.config.normalizer == "unit":
            weights = weights + (1 - weights.sum(dim=-1, keepdim=True)) / self.tokens
        return weights

    def _features(self, tokens: Tensor, *parts: Tensor) -> tuple[_Side, _Side]:
        """What the kernel and the difference make of queries and keys, (B, N, D) each."""
        queries, keys = (part.unflatten(-1, (self.heads, -1)) for part in full_precision(*parts))
        query, key = self.query_kernel(queries), self.key_kernel(keys)
        if not self.differential:
            return _Side(query), _Side(key)
        return self.redundant_query(query, tokens), self.redundant_key(key, tokens)

    def _denominator(
        self, query: _Side, key: _Side, sums: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor | float:
        """What a row of similarities, whose sum `sums` finds, is divided by: (..., N, 1)."""
        eps = self.config.eps
        match self.config.normalizer:
            case "similarity" | "unit":
                similar = sums(query.plain, key.plain)
                # The kernel leaves nothing of some queries. Such a token attends to none, as in
                # linear attention without a difference: there is nothing to take a redundancy from,
                # and divided by `eps` alone it would be the largest output by far.
                return similar.masked_fill(similar == 0, torch.inf) + eps
            case "absolute":
                return sums(query.bound, key.bound) + eps
            case "difference":
                return sums(query.differenced, key.differenced) + eps
            case "none" | "rms":
                return float(self.tokens)


class _Side(NamedTuple):
    """Queries or keys, (B, N, H, d): `Q~`, and `Q'~` with its lambda (B, N, H, 1), or None.

    Properties are (B, H, N, d).
    """

    measured: Tensor
    redundant: Tensor | None = None
    factor: Tensor | None = None

    @property
    def plain(self) -> Tensor:
        """`Q~`."""
        return self.measured.transpose(1, 2)

    @property
    def differenced(self) -> Tensor:
        """`Q^ = Q~ - lambda Q'~`."""
        if self.redundant is None or self.factor is None:
            return self.plain
        return torch.addcmul(self.measured, self.redundant, self.factor, value=-1).transpose(1, 2)

    @property
    def bound(self) -> Tensor:
        """`Q~ + |lambda| Q'~`, at least as large as `|Q^|` in every channel."""
        if self.redundant is None or self.factor is None:
            return self.plain
        return torch.addcmul(self.measured, self.redundant, self.factor.abs()).transpose(1, 2)

    def of_head(self, head: int) -> _Side:
        """With that head alone, (B, N, 1, d)."""
        rest = (self.redundant, self.factor)
        own = (part if part is None else part[:, :, head, None] for part in rest)
        return _Side(self.measured[:, :, head, None], *own)


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
        self.difference: ChosenDifference | StaticDifference = StaticDifference(config.lambda_init)
        if config.differential == "dynamic":
            initial = InitialFactors(
                config.n_differentials, config.lambda_init, config.lambda_spread
            )
            self.difference = ChosenDifference(config.head_dim, initial, learning)

    def forward(self, measured: Tensor, tokens: Tensor) -> _Side:
        """The side of `Q~` (B, N, H, d) and tokens (B, N, D)."""
        (redundant,) = full_precision(self.norm(self.projectors(tokens)))
        redundant = self.kernel(redundant.unflatten(-1, (self.heads, -1)))
        return _Side(measured, redundant, self.difference(measured, redundant))


def _materialised_sums(queries: Tensor, keys: Tensor) -> Tensor:
    """The row sums (..., N, 1) of the similarities, by way of all N x N of them."""
    return similarities(queries, keys).sum(dim=-1, keepdim=True)


def _kernel(config: Config, heads: int) -> ChosenPower | FixedPower | nn.ReLU:
    match config.kernel:
        case "dynamic":
            return ChosenPower(
                config.head_dim,
                InitialFactors(config.n_kernels, config.gamma_init, config.gamma_spread),
                ExponentMap(config.gamma_floor, config.gamma_map),
                config.router_learning,
                heads if config.kernel_per_head else 1,
            )
        case "static":
            return FixedPower(config.static_exponent)
        case "relu":
            return nn.ReLU()
