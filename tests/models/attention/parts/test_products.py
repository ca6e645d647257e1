"""The products of linear attention and their precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.attention.parts.products import (
    full_precision,
    linear_product,
    merge_heads,
    similarities,
    similarity_sums,
    split_heads,
)


def parts(tokens: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    stream = torch.Generator().manual_seed(0)
    queries, keys, values = torch.randn(3, 2, 3, tokens, 8, generator=stream, dtype=dtype)
    return queries, keys, values


@pytest.mark.parametrize("tokens", [5, 8, 9, 40])
def test_both_orders_of_the_product_give_the_same(tokens: int) -> None:
    queries, keys, values = parts(tokens, torch.float64)
    expected = torch.einsum("bhic,bhjc,bhjd->bhid", queries, keys, values)
    torch.testing.assert_close(linear_product(queries, keys, values), expected)
    torch.testing.assert_close(
        similarity_sums(queries, keys), similarities(queries, keys).sum(dim=-1, keepdim=True)
    )


@pytest.mark.parametrize("tokens", [5, 40])
def test_autocast_does_not_lower_the_precision(tokens: int) -> None:
    queries, keys, values = parts(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        product, similarity = linear_product(queries, keys, values), similarities(queries, keys)
    assert torch.equal(product, linear_product(queries, keys, values))
    assert torch.equal(similarity, similarities(queries, keys))


def test_half_precision_is_raised_and_double_kept() -> None:
    half, double = full_precision(torch.ones(1).bfloat16(), torch.ones(1).double())
    assert (half.dtype, double.dtype) == (torch.float32, torch.float64)


def test_heads_split_and_merge_back() -> None:
    tokens = torch.arange(2 * 5 * 12).reshape(2, 5, 12)
    heads = split_heads(tokens, 3)
    assert torch.equal(heads[1, 2, 4], tokens[1, 4, 8:])
    assert torch.equal(merge_heads(heads), tokens)
