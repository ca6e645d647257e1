from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from harness.config.schema import TrialConfig
from harness.training.build import build_backbone, build_module
from models.attention.parts.routing import factor_parameters
from models.diffusion_module import DiffusionModule

SHAPE = (1, 8, 8)


def module(trial_config: Callable[..., TrialConfig], *overrides: str) -> DiffusionModule:
    small = ("model.depth=1", "train.learning_rate=1e-3", "train.warmup_steps=0")
    return build_module(trial_config("dydila", *small, *overrides), SHAPE, 10)


def test_the_factors_are_all_exponents_and_lambdas(
    trial_config: Callable[..., TrialConfig],
) -> None:
    backbone = module(trial_config).backbone
    named = {
        name
        for name, parameter in backbone.named_parameters()
        if any(parameter is factor for factor in factor_parameters(backbone))
    }
    ending = (".exponents", ".factors")
    assert named == {name for name, _ in backbone.named_parameters() if name.endswith(ending)}
    assert len(named) == 6


def test_shared_exponents_come_once(trial_config: Callable[..., TrialConfig]) -> None:
    config = trial_config("dydila", "model.depth=1")
    attention = config.attention.model_copy(update={"kernel_sharing_roles": "shared"})
    shared = build_backbone(config.model_copy(update={"attention": attention}), SHAPE, 10)
    factors = factor_parameters(shared)
    assert len(factors) == len({id(factor) for factor in factors}) == 3


@pytest.mark.parametrize("multiple", [1.0, 30.0])
def test_the_first_step_moves_factors_by_their_own_rate(
    trial_config: Callable[..., TrialConfig], multiple: float
) -> None:
    """Adam's first step is the learning rate, whatever the gradient."""
    trained = module(trial_config, f"train.factor_learning_rate={multiple}")
    optimizer = trained.configure_optimizers()["optimizer"]
    before = {name: value.clone() for name, value in trained.backbone.named_parameters()}
    for parameter in trained.backbone.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, value in trained.backbone.named_parameters():
        rate = 1e-3 * (multiple if name.endswith((".exponents", ".factors")) else 1.0)
        moved = before[name] - value
        torch.testing.assert_close(moved, torch.full_like(moved, rate), rtol=1e-3, atol=1e-6)
