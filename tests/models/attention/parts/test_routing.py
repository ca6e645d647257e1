"""Hard choices, and the gradients that routers learn from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from harness.config.schema import TrialConfig
from harness.training.build import build_backbone, build_module
from models.attention.parts.routing import Router, RouterGradient, RouterLearning, factor_parameters
from models.diffusion_module import DiffusionModule
from models.randomness import initialize


def router(
    gradient: RouterGradient = "straight_through", balance_weight: float = 0.0, groups: int = 1
) -> Router:
    made = Router(6, 4, RouterLearning(gradient, balance_weight), groups)
    initialize(made, seed=0)
    return made.double()


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("gradient", ["straight_through", "gate"])
@pytest.mark.parametrize("grad_enabled", [True, False])
def test_choice_is_exactly_one_hot_at_the_largest_logit(
    gradient: RouterGradient, grad_enabled: bool
) -> None:
    made, tokens = router(gradient), inputs(3, 50, 6)
    with torch.set_grad_enabled(grad_enabled):
        choice = made(tokens)
    expected = nn.functional.one_hot((tokens @ made.weight[0]).argmax(dim=-1), 4).double()
    assert torch.equal(choice.weights, expected)
    assert len(expected.sum(dim=(0, 1)).nonzero()) > 1


def test_straight_through_gradient_is_that_of_the_softmax() -> None:
    made, tokens, values = router(), inputs(3, 50, 6).requires_grad_(), inputs(4)
    weight = inputs(3, 50)
    chosen = made(tokens).of_values(values)
    assert torch.equal(chosen, values[(tokens @ made.weight[0]).argmax(dim=-1)])
    soft = (tokens @ made.weight[0]).softmax(dim=-1) @ values
    for parameter in (tokens, made.weight):
        (actual,) = torch.autograd.grad((chosen * weight).sum(), parameter, retain_graph=True)
        (expected,) = torch.autograd.grad((soft * weight).sum(), parameter, retain_graph=True)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_straight_through_gradient_to_the_values_is_that_of_the_hard_choice() -> None:
    made, tokens, values = router(), inputs(3, 50, 6), inputs(4).requires_grad_()
    made(tokens).of_values(values).sum().backward()
    chosen = (tokens @ made.weight[0]).argmax(dim=-1)
    assert torch.equal(values.grad, torch.bincount(chosen.flatten(), minlength=4).double())


def test_gate_multiplies_by_the_probability_of_the_choice_and_learns_through_it() -> None:
    made, tokens = router("gate"), inputs(3, 50, 6)
    content = inputs(3, 50, 2)
    gated = made(tokens).gated(content)
    probabilities = (tokens @ made.weight[0]).softmax(dim=-1)
    expected = content * probabilities.amax(dim=-1, keepdim=True)
    torch.testing.assert_close(gated, expected, rtol=1e-12, atol=1e-12)
    (actual_gradient,) = torch.autograd.grad(gated.sum(), made.weight)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), made.weight)
    torch.testing.assert_close(actual_gradient, expected_gradient, rtol=1e-12, atol=1e-12)


def test_straight_through_choice_is_not_gated() -> None:
    content = inputs(3, 50, 2)
    assert router()(inputs(3, 50, 6)).gated(content) is content


def test_gate_is_the_same_without_gradients() -> None:
    made, tokens, content = router("gate"), inputs(3, 50, 6), inputs(3, 50, 2)
    with torch.no_grad():
        without = made(tokens).gated(content)
    assert torch.equal(without, made(tokens).gated(content))


def test_logits_are_in_single_precision_under_autocast() -> None:
    made, tokens = router().float(), inputs(3, 50, 6).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = made(tokens)
        half = made(tokens.bfloat16())
    assert torch.equal(inside.logits, made(tokens).logits)
    assert half.logits.dtype == torch.float32


def test_each_group_routes_by_a_map_of_its_own() -> None:
    made, tokens = router(groups=3), inputs(2, 50, 3, 6)
    choice = made(tokens)
    for group in range(3):
        expected = (tokens[:, :, group] @ made.weight[group]).argmax(dim=-1)
        assert torch.equal(choice.weights[:, :, group].argmax(dim=-1), expected)


def test_routers_start_different_from_each_other() -> None:
    pair = nn.ModuleList(Router(6, 4, RouterLearning("gate", 0.0)) for _ in range(2))
    initialize(pair, seed=0)
    assert not torch.equal(pair[0].weight, pair[1].weight)


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
    ending = (".raw_exponents", ".factors")
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
        rate = 1e-3 * (multiple if name.endswith((".raw_exponents", ".factors")) else 1.0)
        moved = before[name] - value
        torch.testing.assert_close(moved, torch.full_like(moved, rate), rtol=1e-3, atol=1e-6)
