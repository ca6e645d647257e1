"""Training health of routers against counts by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from models.attention import build_attention, load_variant
from models.attention.base import AttentionShape, ValueConvolutionConfig
from models.attention.parts.routing import Router, RouterLearning
from models.attention.parts.routing_health import RoutingRecorder
from models.randomness import initialize


def router(options: int = 4) -> Router:
    made = Router(6, options, RouterLearning("straight_through", 0.0))
    initialize(made, seed=0)
    return made


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("grad_enabled", [True, False])
def test_shares_and_entropies_equal_counts_over_all_passes(grad_enabled: bool) -> None:
    made, batches = router(), inputs(3, 2, 40, 6)
    with torch.set_grad_enabled(grad_enabled), RoutingRecorder(made) as recorder:
        for batch in batches:
            made(batch)
    health = recorder.health()[""]
    logits = batches.flatten(0, 2) @ made.weight[0]
    shares = [(logits.argmax(dim=-1) == option).double().mean().item() for option in range(4)]
    assert health.shares == pytest.approx(shares)
    assert health.usage_entropy == pytest.approx(-sum(s * math.log(s, 4) for s in shares))
    certainty = torch.distributions.Categorical(logits=logits).entropy().mean().item()
    assert health.token_entropy == pytest.approx(certainty / math.log(4), rel=1e-5)
    assert health.dead == 0


def test_dead_options_are_counted() -> None:
    made = router()
    with torch.no_grad():
        made.weight.zero_()[..., 2] = 100.0
    with RoutingRecorder(made) as recorder:
        made(inputs(40, 6).abs())
    health = recorder.health()[""]
    assert health.shares == (0.0, 0.0, 1.0, 0.0)
    assert (health.dead, health.usage_entropy) == (3, 0.0)
    assert health.token_entropy == pytest.approx(0.0, abs=1e-6)


def test_single_option_has_no_entropy() -> None:
    made = router(options=1)
    with RoutingRecorder(made) as recorder:
        made(inputs(40, 6))
    health = recorder.health()[""]
    assert (health.shares, health.usage_entropy, health.token_entropy) == ((1.0,), 0.0, 0.0)


def test_every_router_of_dydila_is_watched_and_nothing_changes() -> None:
    shape = AttentionShape(
        64, 2, (4, 5), ValueConvolutionConfig(size=0, initialization="zero"), False
    )
    block = build_attention(load_variant("dydila").config(), shape)
    initialize(block, seed=0)
    tokens = torch.randn(2, 20, 64, generator=torch.Generator().manual_seed(0))
    plain = block(tokens)
    with RoutingRecorder(block) as recorder:
        watched = block(tokens)
    assert torch.equal(plain, watched)
    assert {name: len(health.shares) for name, health in recorder.health().items()} == {
        "query_kernel.router": 9,
        "key_kernel.router": 9,
        "redundant_query.projectors.router": 3,
        "redundant_query.kernel.router": 9,
        "redundant_query.difference.router": 9,
        "redundant_key.projectors.router": 3,
        "redundant_key.kernel.router": 9,
        "redundant_key.difference.router": 9,
    }


def test_listening_ends_with_the_context_even_after_an_error() -> None:
    made = router()
    recorder = RoutingRecorder(made)
    with pytest.raises(RuntimeError), recorder:
        made(inputs(40, 5))
    made(inputs(40, 6))
    assert recorder.health() == {}


def test_network_without_routers_has_no_health() -> None:
    with RoutingRecorder(nn.Linear(6, 6)) as recorder:
        pass
    assert recorder.health() == {}
