"""The feed-forward parts against other libraries'."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers.sana_transformer import GLUMBConv
from timm.layers import Mlp
from torch import nn

from models.backbone import FeedForward, MixFeedForward, build_feedforward
from models.errors import UserError
from models.randomness import initialize

WIDTH = 16
HIDDEN = 40
GRID = (4, 6)


def tokens(grid: tuple[int, int] = GRID) -> torch.Tensor:
    stream = torch.Generator().manual_seed(1)
    return torch.randn(2, grid[0] * grid[1], WIDTH, generator=stream)


def scrambled(module: nn.Module) -> nn.Module:
    initialize(module, seed=0)
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=stream))
    return module


def test_mix_equals_sanas_with_the_same_weights() -> None:
    ours = scrambled(MixFeedForward(WIDTH, HIDDEN, GRID))
    theirs = GLUMBConv(WIDTH, WIDTH, expand_ratio=2.5, residual_connection=False)
    theirs.load_state_dict(
        {
            "conv_inverted.weight": ours.hidden.weight[..., None, None],
            "conv_inverted.bias": ours.hidden.bias,
            "conv_depth.weight": ours.depthwise.weight,
            "conv_depth.bias": ours.depthwise.bias,
            "conv_point.weight": ours.output.weight[..., None, None],
        }
    )
    image = tokens().unflatten(1, GRID).permute(0, 3, 1, 2)
    expected = theirs(image).flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours(tokens()), expected, rtol=1e-5, atol=1e-5)


def test_mlp_equals_timms_with_the_same_weights() -> None:
    ours = scrambled(FeedForward(WIDTH, HIDDEN))
    theirs = Mlp(WIDTH, HIDDEN, act_layer=lambda: nn.GELU(approximate="tanh"))
    theirs.fc1.load_state_dict(ours.hidden.state_dict())
    theirs.fc2.load_state_dict(ours.output.state_dict())
    torch.testing.assert_close(ours(tokens()), theirs(tokens()), rtol=1e-5, atol=1e-6)


def test_kind_is_built_by_its_name() -> None:
    assert type(build_feedforward("mlp", WIDTH, HIDDEN, GRID)) is FeedForward
    assert type(build_feedforward("mix", WIDTH, HIDDEN, GRID)) is MixFeedForward


def test_mix_refuses_another_grid_with_both_token_counts() -> None:
    with pytest.raises(UserError, match="4x6 = 24 tokens, but got 25"):
        MixFeedForward(WIDTH, HIDDEN, GRID)(tokens((5, 5)))
