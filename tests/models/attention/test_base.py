"""The depth-wise convolution of V."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from models.attention.base import AttentionShape, ValueConvolution, ValueConvolutionConfig
from models.errors import UserError
from models.randomness import initialize

GRID = (4, 6)


WIDTH = 8


def build(size: int, initialization: str = "random") -> ValueConvolution:
    config = ValueConvolutionConfig(size=size, initialization=initialization)
    module = ValueConvolution(AttentionShape(WIDTH, 2, GRID, config, qk_norm=False))
    initialize(module, seed=0)
    return module.double()


def values(count: int = 24) -> Tensor:
    stream = torch.Generator().manual_seed(0)
    return torch.randn(2, count, WIDTH, generator=stream, dtype=torch.float64)


def test_each_channel_is_correlated_with_its_own_kernel_on_the_grid() -> None:
    module = build(3)
    with torch.no_grad():
        module.convolution.bias.normal_(generator=torch.Generator().manual_seed(1))
    padded = F.pad(values().reshape(2, *GRID, WIDTH), (0, 0, 1, 1, 1, 1))
    expected = torch.zeros(2, *GRID, WIDTH, dtype=torch.float64) + module.convolution.bias
    for down in range(3):
        for right in range(3):
            window = padded[:, down : down + GRID[0], right : right + GRID[1]]
            expected = expected + window * module.convolution.weight[:, 0, down, right]
    attended = values().flip(0)
    torch.testing.assert_close(module(attended, values()), attended + expected.flatten(1, 2))


def test_identity_adds_the_values_themselves() -> None:
    torch.testing.assert_close(build(5, "identity")(2 * values(), values()), 3 * values())


def test_zero_adds_nothing_at_first_and_learns() -> None:
    module = build(5, "zero")
    output = module(2 * values(), values())
    assert torch.equal(output, 2 * values())
    output.sum().backward()
    assert module.convolution.weight.grad.any()


def test_size_zero_has_no_parameters_and_returns_its_input() -> None:
    module, attended = build(0), values()
    assert not list(module.parameters())
    assert module(attended, values()) is attended


def test_even_size_is_refused() -> None:
    with pytest.raises(UserError, match="must be odd or 0, but is 4"):
        build(4)


def test_negative_size_is_refused() -> None:
    with pytest.raises(ValidationError):
        ValueConvolutionConfig(size=-1, initialization="zero")


def test_grid_that_does_not_match_is_named_with_both_token_counts() -> None:
    with pytest.raises(UserError, match="4x6 = 24 tokens, but got 25"):
        build(3)(values(25), values(25))
