"""Dividing the width into heads, and the products that make attention linear."""

from __future__ import annotations

import torch
from torch import Tensor

from models.errors import UserError


def full_precision(*tensors: Tensor) -> tuple[Tensor, ...]:
    """At least float32: half precision overflows in the sums over tokens."""
    return tuple(t.to(torch.promote_types(t.dtype, torch.float32)) for t in tensors)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, N, D) to (B, H, N, d)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(heads: Tensor) -> Tensor:
    """(B, H, N, d) to (B, N, D)."""
    return heads.transpose(1, 2).flatten(2)


def linear_product(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """`Q (K^T V)`, all (..., N, d); `(Q K^T) V` where N <= d, the same result for less work.

    In the precision of the arguments, whatever the autocast.
    """
    with torch.autocast(queries.device.type, enabled=False):
        if queries.shape[-2] <= queries.shape[-1]:
            return (queries @ keys.mT) @ values
        return queries @ (keys.mT @ values)


def similarities(queries: Tensor, keys: Tensor) -> Tensor:
    """`Q K^T` of (..., N, d), as (..., N, N); in their precision, whatever the autocast."""
    with torch.autocast(queries.device.type, enabled=False):
        return queries @ keys.mT


def similarity_sums(queries: Tensor, keys: Tensor) -> Tensor:
    """`q_i . sum_j k_j` of (..., N, d), as (..., N, 1): the row sums of `Q K^T`."""
    return (queries * keys.sum(dim=-2, keepdim=True)).sum(dim=-1, keepdim=True)


def checked_head_dim(width: int, heads: int) -> int:
    """Channels of one head.

    Raises:
        UserError: the heads do not divide the width.
    """
    if width % heads:
        raise UserError(f"{heads} heads do not divide the width {width}: {width / heads:g} a head")
    return width // heads


def checked_heads(width: int, head_dim: int) -> int:
    """Heads of `head_dim` channels each.

    Raises:
        UserError: the head dimension does not divide the width.
    """
    if width % head_dim:
        raise UserError(
            f"attention.head_dim {head_dim} does not divide the width {width}: "
            f"{width / head_dim:g} heads"
        )
    return width // head_dim
