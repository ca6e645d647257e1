"""Dividing the width into heads, and the products that make attention linear."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.errors import UserError

SumPrecision = Literal["float32", "tf32", "bf16"]
"""What the factors of linear attention's products are rounded to; sums are float32 in all three.

TF32 keeps 10 bits of the mantissa and bf16 7, on a GPU's tensor cores, where float32 has none. A
CPU has no TF32, and computes `tf32` in float32.
"""


def full_precision(*tensors: Tensor) -> tuple[Tensor, ...]:
    """At least float32: half precision overflows in the sums over tokens."""
    return tuple(t.to(torch.promote_types(t.dtype, torch.float32)) for t in tensors)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, N, D) to (B, H, N, d)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(heads: Tensor) -> Tensor:
    """(B, H, N, d) to (B, N, D)."""
    return heads.transpose(1, 2).flatten(2)


def linear_product(
    queries: Tensor, keys: Tensor, values: Tensor, precision: SumPrecision = "float32"
) -> Tensor:
    """`Q (K^T V)`, all (..., N, d); `(Q K^T) V` where N <= d, the same result for less work.

    The result has the arguments' type, whatever the autocast; the factors of both products, and of
    their gradients, are rounded to `precision`.
    """

    def product(left: Tensor, right: Tensor) -> Tensor:
        if precision == "float32":
            return left @ right
        rounded: Tensor = _RoundedProduct.apply(left, right, precision)
        return rounded

    with torch.autocast(queries.device.type, enabled=False):
        if queries.shape[-2] <= queries.shape[-1]:
            return product(product(queries, keys.mT), values)
        return product(queries, product(keys.mT, values))


class _RoundedProduct(torch.autograd.Function):
    """A product of rounded factors with float32 sums, its gradients being such products too."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, precision: SumPrecision) -> Tensor:
        ctx.save_for_backward(left, right)
        ctx.precision = precision
        return _rounded_product(left, right, precision)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        left, right = ctx.saved_tensors
        to_left = _rounded_product(gradient, right.mT, ctx.precision)
        return to_left, _rounded_product(left.mT, gradient, ctx.precision), None


def _rounded_product(left: Tensor, right: Tensor, precision: SumPrecision) -> Tensor:
    """(..., r, c) times (..., c, s), in the type of `left`."""
    on_gpu = left.device.type == "cuda"
    if precision == "tf32":
        if not on_gpu:
            return left @ right
        settings = torch.backends.cuda.matmul
        before = settings.fp32_precision
        settings.fp32_precision = "tf32"
        try:
            return left @ right
        finally:
            settings.fp32_precision = before
    short_left, short_right = left.bfloat16(), right.bfloat16()
    if not on_gpu:
        # Products of two bf16 numbers are exact in float32, so this is what a tensor core does.
        return (short_left.float() @ short_right.float()).to(left.dtype)
    left_stack, right_stack = short_left.flatten(0, -3), short_right.flatten(0, -3)
    flat = torch.bmm(left_stack, right_stack, out_dtype=torch.float32)
    return flat.view(*left.shape[:-2], *flat.shape[-2:]).to(left.dtype)


def similarities(queries: Tensor, keys: Tensor) -> Tensor:
    """`Q K^T` of (..., N, d), as (..., N, N); in their precision, whatever the autocast."""
    with torch.autocast(queries.device.type, enabled=False):
        return queries @ keys.mT


def similarity_sums(queries: Tensor, keys: Tensor) -> Tensor:
    """`q_i . sum_j k_j` of (..., N, d), as (..., N, 1): the row sums of `Q K^T`."""
    return (queries * keys.sum(dim=-2, keepdim=True)).sum(dim=-1, keepdim=True)


def checked_heads(width: int, head_dim: int) -> int:
    """Heads of `head_dim` channels each; UserError where they do not divide the width."""
    if width % head_dim:
        raise UserError(
            f"attention.head_dim {head_dim} does not divide the width {width}: "
            f"{width / head_dim:g} heads"
        )
    return width // head_dim
