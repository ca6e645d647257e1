"""The measures against matrices whose answer is known, loops, SciPy and NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from harness.evaluation.metrics.attention import (
    effective_rank,
    empty_rows,
    normalized_rows,
    row_entropy,
    token_similarity,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=stream, dtype=torch.float64)


@pytest.mark.parametrize("tokens", [2, 7, 64])
def test_uniform_attention_is_as_smooth_as_can_be(tokens: int) -> None:
    weights = torch.full((1, tokens, tokens), 1 / tokens, dtype=torch.float64)
    assert row_entropy(normalized_rows(weights)).item() == pytest.approx(1.0)
    assert effective_rank(normalized_rows(weights)).item() == pytest.approx(1.0)
    outputs = weights @ random(1, tokens, 5)
    assert token_similarity(outputs).item() == pytest.approx(1.0)


@pytest.mark.parametrize("tokens", [2, 7, 64])
def test_identity_is_as_sharp_as_can_be(tokens: int) -> None:
    weights = torch.eye(tokens, dtype=torch.float64)[None]
    assert row_entropy(normalized_rows(weights)).item() == pytest.approx(0.0)
    assert effective_rank(normalized_rows(weights)).item() == pytest.approx(tokens)
    assert token_similarity(torch.eye(tokens)[None]).item() == pytest.approx(0.0, abs=1e-12)


def test_negative_weights_count_by_their_size_and_keep_their_sign() -> None:
    weights = torch.tensor([[[3.0, -1.0], [-2.0, 2.0]]], dtype=torch.float64)
    rows = normalized_rows(weights)
    assert rows.tolist() == [[[0.75, -0.25], [-0.5, 0.5]]]
    expected = np.mean([scipy.stats.entropy([0.75, 0.25], base=2), 1.0])
    assert row_entropy(rows).item() == pytest.approx(expected)
    assert effective_rank(-rows).item() == pytest.approx(effective_rank(rows).item())


@pytest.mark.parametrize("tokens", [3, 16, 45])
def test_entropy_and_rank_equal_scipy_and_numpy(tokens: int) -> None:
    weights = random(4, tokens, tokens)
    rows = normalized_rows(weights)
    for index, matrix in enumerate(weights.numpy()):
        sized = np.abs(matrix)
        entropies = scipy.stats.entropy(sized, axis=1) / math.log(tokens)
        assert row_entropy(rows)[index].item() == pytest.approx(entropies.mean())
        values = np.linalg.svd(matrix / sized.sum(axis=1, keepdims=True), compute_uv=False)
        rank = math.exp(scipy.stats.entropy(values))
        assert effective_rank(rows)[index].item() == pytest.approx(rank)


def test_entropy_equals_a_loop_over_entries() -> None:
    weights = random(1, 6, 6).relu()
    total = 0.0
    for row in weights[0].tolist():
        for entry in row:
            share = entry / sum(row)
            total -= share * math.log(share) / math.log(6) if share else 0.0
    assert row_entropy(normalized_rows(weights)).item() == pytest.approx(total / 6)


def test_similarity_equals_a_loop_over_pairs() -> None:
    outputs = random(2, 9, 4) + 0.5
    for index, tokens in enumerate(outputs.numpy()):
        cosines = [
            tokens[i] @ tokens[j] / (np.linalg.norm(tokens[i]) * np.linalg.norm(tokens[j]))
            for i in range(9)
            for j in range(9)
            if i != j
        ]
        assert token_similarity(outputs)[index].item() == pytest.approx(np.mean(cosines))


def test_tokens_that_attend_to_nothing_are_counted_and_left_out() -> None:
    weights = torch.eye(4, dtype=torch.float64)[None].clone()
    weights[0, 0] = 0.0
    weights[0, 1] = 0.25
    rows = normalized_rows(weights)
    assert empty_rows(rows).tolist() == [0.25]
    assert row_entropy(rows).item() == pytest.approx(1 / 3)
    assert effective_rank(rows).isfinite().all()
    outputs = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]])
    assert token_similarity(outputs).item() == pytest.approx(math.sqrt(0.5))


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_what_is_not_defined_is_nan_and_spoils_no_other_image(value: float) -> None:
    weights = random(2, 5, 5).softmax(dim=-1)
    alone = effective_rank(normalized_rows(weights))[1].item()
    weights[0] = value
    rows = normalized_rows(weights)
    for measured in (row_entropy(rows), effective_rank(rows), token_similarity(weights)):
        assert measured[0].isnan()
        assert measured[1].isfinite()
    assert effective_rank(rows)[1].item() == pytest.approx(alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [8, 100, 520])
def test_the_short_cut_at_many_tokens_changes_nothing(rank: int, dtype: torch.dtype) -> None:
    """Rank 8 is found by the first sketch, 100 just so, 520 by none."""
    weights = (random(520, rank) @ random(rank, 520, seed=1))[None].to(dtype)
    rows = normalized_rows(weights)
    values = np.linalg.svd(rows[0].double().numpy(), compute_uv=False)
    expected = math.exp(scipy.stats.entropy(values))
    assert effective_rank(rows).item() == pytest.approx(expected, rel=1e-4)
