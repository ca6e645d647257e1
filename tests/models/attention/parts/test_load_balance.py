"""The load-balancing loss against a count by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.attention.dydila import Config as DydilaConfig
from models.attention.parts.load_balance import balance_loss
from models.attention.parts.routing import Router, RouterGradient, RouterLearning
from models.backbone import Backbone, BackboneConfig
from models.randomness import initialize


def routers(
    weight: float,
    count: int = 1,
    groups: int = 1,
    gradient: RouterGradient = "straight_through",
) -> nn.ModuleList:
    learning = RouterLearning(gradient, weight)
    made = nn.ModuleList(Router(6, 4, learning, groups) for _ in range(count))
    initialize(made, seed=0)
    return made.double()


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def imbalance_by_hand(logits: Tensor) -> Tensor:
    """`n sum_m f_m P_m` over logits (tokens, n), one token after the other."""
    options = logits.shape[-1]
    counts, total = [0] * options, torch.zeros(options, dtype=logits.dtype)
    for token in logits:
        counts[int(token.argmax())] += 1
        total = total + token.softmax(dim=-1)
    shares = torch.tensor(counts, dtype=logits.dtype) / len(logits)
    return options * (shares * total / len(logits)).sum()


def test_loss_and_gradient_equal_a_count_by_hand() -> None:
    model, tokens = routers(0.3, count=2), inputs(3, 50, 6)
    for router in model:
        router(tokens)
    loss = balance_loss(model)
    flat = tokens.flatten(0, 1)
    expected = sum(0.3 * imbalance_by_hand(flat @ router.weight[0]) for router in model)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, list(model.parameters())),
        torch.autograd.grad(expected, list(model.parameters())),
    )


def test_groups_are_balanced_each_for_itself() -> None:
    model, tokens = routers(1.0, groups=3), inputs(2, 50, 3, 6)
    model[0](tokens)
    each = [
        imbalance_by_hand(tokens[:, :, group].flatten(0, 1) @ model[0].weight[group])
        for group in range(3)
    ]
    torch.testing.assert_close(balance_loss(model), sum(each) / 3)


def test_loss_runs_from_one_to_the_number_of_options() -> None:
    model = routers(1.0)
    with torch.no_grad():
        model[0].weight.zero_()[0, :4, :4] = 1e3 * torch.eye(4)
    model[0](torch.eye(6, dtype=torch.float64)[:4])
    assert balance_loss(model).item() == pytest.approx(1.0)
    model[0](torch.eye(6, dtype=torch.float64)[:1].expand(9, 6))
    assert balance_loss(model).item() == pytest.approx(4.0)


def test_descending_the_loss_revives_a_dead_option() -> None:
    model, tokens = routers(1.0), inputs(200, 6) + 1.0
    with torch.no_grad():
        model[0].weight[..., 3] = -2.0
    assert not model[0](tokens).weights[:, 3].any()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        model[0](tokens)
        balance_loss(model).backward()
        optimizer.step()
    assert model[0](tokens).weights[:, 3].mean() > 0.1


@pytest.mark.parametrize("gradient", ["straight_through", "gate"])
@pytest.mark.parametrize("why", ["weight is zero", "evaluation", "without gradients"])
def test_there_is_no_loss_where_none_is_asked_for(why: str, gradient: RouterGradient) -> None:
    model = routers(0.0 if why == "weight is zero" else 1.0, gradient=gradient)
    model.train(why != "evaluation")
    with torch.set_grad_enabled(why != "without gradients"):
        model[0](inputs(50, 6))
    assert balance_loss(model) is None


def test_terms_are_forgotten_once_taken_so_that_the_model_can_be_copied() -> None:
    model = routers(1.0)
    model[0](inputs(50, 6))
    assert balance_loss(model) is not None
    assert balance_loss(model) is None
    copy.deepcopy(model)


def test_activations_computed_twice_leave_no_graph_behind(
    backbone_config: Callable[..., BackboneConfig],
) -> None:
    """And the loss and its gradients are those of activations that are kept."""
    attention = DydilaConfig(head_dim=16, load_balance_weight=0.1)
    backbone = Backbone(backbone_config(attention=attention), seed=0).train()
    with torch.no_grad():
        # Fresh modulations are zero, and so are most gradients.
        for parameter in backbone.parameters():
            parameter.add_(0.05 * inputs(*parameter.shape).float())
    images, times, labels = inputs(2, 4, 8, 8).float(), torch.tensor([3, 700]), torch.tensor([1, 2])
    found = []
    for recomputes in (False, True):
        backbone.checkpoints_activations = recomputes
        backbone.zero_grad()
        predicted = backbone(images, times, labels)
        balance = balance_loss(backbone)
        assert balance is not None
        (predicted.square().mean() + balance).backward()
        uses = [module.use for module in backbone.modules() if isinstance(module, Router)]
        assert len(uses) == 2 * 8
        assert uses == [None] * len(uses)
        gradients = [parameter.grad for parameter in backbone.parameters()]
        found.append([balance.detach(), *(g.clone() for g in gradients if g is not None)])
    torch.testing.assert_close(found[0], found[1])
