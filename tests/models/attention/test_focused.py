"""Focused linear attention against FLatten's order of operations, written out."""

from __future__ import annotations

import torch
from torch import Tensor

from models.attention import build_attention
from models.attention.base import AttentionBlock, AttentionShape, ValueConvolutionConfig
from models.attention.focused import Config
from models.randomness import initialize

WIDTH = 48
HEADS = 3


def build(grid: tuple[int, int]) -> AttentionBlock:
    none = ValueConvolutionConfig(size=0, initialization="zero")
    block = build_attention(Config(), AttentionShape(WIDTH, HEADS, grid, none, qk_norm=False))
    initialize(block, seed=0)
    return block.double()


def focused_features(rows: Tensor, scale: Tensor) -> Tensor:
    """FLatten's map: ReLU, division by the scale, power 3 with the norm of the whole row kept."""
    rows = rows.relu() / torch.log1p(torch.exp(scale))
    norm = rows.square().sum(dim=-1, keepdim=True).sqrt()
    cubed = rows**3
    return norm * cubed / cubed.square().sum(dim=-1, keepdim=True).sqrt()


def test_output_equals_the_formula_of_flatten() -> None:
    block = build((7, 9))
    stream = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=stream).double())
    tokens = torch.randn(2, 63, WIDTH, generator=stream, dtype=torch.float64)
    queries, keys, values = (tokens @ block.qkv.weight.T + block.qkv.bias).split(WIDTH, dim=-1)
    queries = focused_features(queries, block.channel_scale)
    keys = focused_features(keys, block.channel_scale)
    heads = []
    for part in torch.arange(WIDTH).split(WIDTH // HEADS):
        similarity = torch.einsum("bic,bjc->bij", queries[..., part], keys[..., part])
        weights = similarity / (similarity.sum(dim=-1, keepdim=True) + 1e-6)
        heads.append(torch.einsum("bij,bjc->bic", weights, values[..., part]))
    expected = torch.cat(heads, dim=-1) @ block.output.weight.T + block.output.bias
    torch.testing.assert_close(block(tokens), expected, rtol=1e-9, atol=1e-9)


def test_parameter_count_and_initial_scale() -> None:
    block = build((4, 4))
    count = sum(parameter.numel() for parameter in block.parameters())
    assert count == 4 * WIDTH**2 + 4 * WIDTH + WIDTH
    assert not block.channel_scale.any()
