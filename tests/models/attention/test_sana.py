"""SANA's attention against diffusers'."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention, SanaLinearAttnProcessor2_0

from models.attention import build_attention
from models.attention.base import AttentionBlock, AttentionShape, ValueConvolutionConfig
from models.attention.sana import Config
from models.randomness import initialize

WIDTH = 128


def build(grid: tuple[int, int], qk_norm: bool = False) -> AttentionBlock:
    none = ValueConvolutionConfig(size=0, initialization="zero")
    block = build_attention(Config(), AttentionShape(WIDTH, 1, grid, none, qk_norm))
    initialize(block, seed=0)
    return block


@pytest.mark.parametrize("grid", [(4, 4), (8, 8), (7, 9)], ids=str)
@pytest.mark.parametrize("qk_norm", [False, True])
def test_output_equals_diffusers_with_the_same_weights(
    grid: tuple[int, int], qk_norm: bool
) -> None:
    block = build(grid, qk_norm)
    theirs = Attention(
        query_dim=WIDTH,
        heads=WIDTH // 32,
        kv_heads=WIDTH // 32,
        dim_head=32,
        bias=False,
        out_bias=True,
        qk_norm="rms_norm_across_heads" if qk_norm else None,
        processor=SanaLinearAttnProcessor2_0(),
    )
    stream = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=stream))
        layers = (theirs.to_q, theirs.to_k, theirs.to_v)
        for layer, weight in zip(layers, block.qkv.weight.chunk(3), strict=True):
            layer.weight.copy_(weight)
        theirs.to_out[0].load_state_dict(block.output.state_dict())
        if qk_norm:
            theirs.norm_q.load_state_dict(block.query_norm.norm.state_dict())
            theirs.norm_k.load_state_dict(block.key_norm.norm.state_dict())
    tokens = torch.randn(2, grid[0] * grid[1], WIDTH, generator=stream)
    torch.testing.assert_close(block(tokens), theirs(tokens), rtol=1e-5, atol=1e-5)


def test_parameter_count() -> None:
    count = sum(parameter.numel() for parameter in build((4, 4)).parameters())
    assert count == 4 * WIDTH**2 + WIDTH
