"""The chosen projector and the chosen lambda against products over all options."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from models.attention.parts.dynamic import ChosenDifference, ProjectorBank
from models.attention.parts.routing import InitialFactors, RouterGradient, RouterLearning
from models.randomness import initialize

GRADIENTS: tuple[RouterGradient, ...] = ("straight_through", "gate")


def draw(*shape: int, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=stream, dtype=torch.float64)


def bank(gradient: RouterGradient, projectors: int = 3, width: int = 8) -> ProjectorBank:
    made = ProjectorBank(width, projectors, RouterLearning(gradient, 0.0))
    initialize(made, seed=0)
    return made.double()


def naive_projection(made: ProjectorBank, tokens: Tensor) -> Tensor:
    """Every projection of every token, weighted by the choice: one-hot plus what is zero."""
    assert made.router is not None
    logits = tokens @ made.router.weight[0]
    probabilities = logits.softmax(dim=-1)
    hard = torch.nn.functional.one_hot(logits.argmax(dim=-1), made.projectors).double()
    projectors = made.weight.unflatten(0, (made.projectors, -1))
    candidates = torch.einsum("bnc,moc->bnmo", tokens, projectors)
    if made.router.learning.gradient == "gate":
        return ((hard * probabilities)[..., None] * candidates).sum(dim=-2)
    weights = hard + probabilities - probabilities.detach()
    return (weights[..., None] * candidates).sum(dim=-2)


def values_and_gradients(output: Tensor, *inputs: Tensor) -> list[Tensor]:
    gradients = torch.autograd.grad(output, inputs, draw(*output.shape, seed=1))
    return [output.detach(), *gradients]


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("tokens_shape", [(2, 63, 8), (1, 1, 8), (3, 100, 8)], ids=str)
def test_one_projector_a_token_equals_the_weighted_sum_of_all(
    gradient: RouterGradient, tokens_shape: tuple[int, ...]
) -> None:
    made = bank(gradient)
    tokens = draw(*tokens_shape).requires_grad_()
    inputs = (tokens, *made.parameters())
    actual = values_and_gradients(made(tokens), *inputs)
    expected = values_and_gradients(naive_projection(made, tokens), *inputs)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_a_projector_that_no_token_chose_gets_no_gradient_but_its_router_does() -> None:
    made = bank("straight_through")
    assert made.router is not None
    with torch.no_grad():
        made.router.weight[..., 2] = 0.0
    tokens = draw(2, 40, 8)
    tokens[..., 0] = 10.0
    with torch.no_grad():
        made.router.weight[0, 0] = torch.tensor([5.0, 5.0, -5.0])
    made(tokens).square().sum().backward()
    assert made.weight.grad is not None
    assert made.router.weight.grad is not None
    assert not made.weight.grad.unflatten(0, (3, -1))[2].any()
    assert made.router.weight.grad[..., 2].any()


def test_the_dense_form_where_tensors_have_no_values_is_the_same_function() -> None:
    made = bank("straight_through")
    tokens = draw(2, 63, 8)
    assert made.router is not None
    dense = made._dense(tokens, made.router(tokens))
    torch.testing.assert_close(made(tokens), dense, rtol=1e-12, atol=1e-12)
    made.float()
    with FakeTensorMode():
        weights = {name: torch.empty(p.shape) for name, p in made.named_parameters()}
        fake = functional_call(made, weights, (torch.empty(2, 63, 8),))
    assert fake.shape == (2, 63, 8)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_chosen_lambda_equals_the_weighted_sum_of_all(gradient: RouterGradient) -> None:
    made = ChosenDifference(4, InitialFactors(5, 0.1, 0.4), RouterLearning(gradient, 0.0))
    initialize(made, seed=0)
    made.double()
    plain, redundant = (draw(2, 3, 63, 4, seed=s).abs().requires_grad_() for s in (2, 3))
    logits = torch.cat([plain, redundant], dim=-1) @ made.router.weight[0]
    probabilities = logits.softmax(dim=-1)
    hard = torch.nn.functional.one_hot(logits.argmax(dim=-1), 5).double()
    if gradient == "gate":
        chosen = (hard * made.factors).sum(-1) * (hard * probabilities).sum(-1)
    else:
        chosen = ((hard + probabilities - probabilities.detach()) * made.factors).sum(-1)
    inputs = (plain, redundant, *made.parameters())
    actual = values_and_gradients(made(plain, redundant), *inputs)
    expected = values_and_gradients(chosen[..., None], *inputs)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
