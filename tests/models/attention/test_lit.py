"""LiT's attention: SANA's with few heads and biases."""

from __future__ import annotations

import torch

from models.attention import build_attention, lit, sana
from models.attention.base import AttentionShape, ValueConvolutionConfig
from models.randomness import initialize

WIDTH = 64


def shape() -> AttentionShape:
    convolution = ValueConvolutionConfig(size=5, initialization="random")
    return AttentionShape(WIDTH, 8, (4, 5), convolution, qk_norm=False)


def test_without_biases_it_equals_sana_with_as_few_heads() -> None:
    few = build_attention(lit.Config(heads=4), shape())
    wide = build_attention(sana.Config(head_dim=16), shape())
    initialize(wide, seed=0)
    with torch.no_grad():
        few.load_state_dict({**wide.state_dict(), "qkv.bias": torch.zeros(3 * WIDTH)})
    tokens = torch.randn(2, 20, WIDTH, generator=torch.Generator().manual_seed(0))
    assert torch.equal(few(tokens), wide(tokens))


def test_heads_are_its_own_and_not_the_backbones() -> None:
    assert build_attention(lit.Config(), shape()).heads == 2


def test_parameter_count() -> None:
    block = build_attention(lit.Config(), shape())
    count = sum(parameter.numel() for parameter in block.parameters())
    assert count == 4 * WIDTH**2 + 4 * WIDTH + WIDTH * (5 * 5 + 1)
