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


@pytest.mark.parametrize("tokens", [5, 40])
def test_factors_in_bf16_are_rounded_and_their_sums_are_not(tokens: int) -> None:
    queries, keys, values = (part.requires_grad_() for part in parts(tokens))

    def rounded(part: Tensor) -> Tensor:
        return part.detach().bfloat16().double()

    gradient = torch.randn(2, 3, tokens, 8, generator=torch.Generator().manual_seed(1))
    actual = linear_product(queries, keys, values, "bf16")
    (to_queries,) = torch.autograd.grad(actual, queries, gradient)
    q, k, v, g = map(rounded, (queries, keys, values, gradient))
    if tokens <= 8:
        inner = rounded((q @ k.mT).float())
        expected = inner @ v
        expected_gradient = rounded((g @ v.mT).float()) @ k
    else:
        inner = rounded((k.mT @ v).float())
        expected, expected_gradient = q @ inner, g @ inner.mT
    torch.testing.assert_close(actual.double(), expected, rtol=2e-3, atol=1e-5)
    torch.testing.assert_close(to_queries.double(), expected_gradient, rtol=2e-3, atol=1e-5)
    exact = linear_product(queries, keys, values)
    assert 1e-4 < ((actual - exact).abs().max() / exact.abs().max()).item() < 2e-2


def test_tf32_is_float32_where_there_is_no_gpu() -> None:
    queries, keys, values = (part.requires_grad_() for part in parts(40))
    exact, same = (linear_product(queries, keys, values, p) for p in ("float32", "tf32"))
    assert torch.equal(exact, same)
    for one, other in zip(
        torch.autograd.grad(exact.sum(), (queries, keys, values)),
        torch.autograd.grad(same.sum(), (queries, keys, values)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
