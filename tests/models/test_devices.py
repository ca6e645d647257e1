"""No network, objective, sampler or training step makes a tensor on a device of its own choice.

Fake tensors say that they are on a GPU and need none: an operation on tensors of two devices is an
error there, as on a card. A backward pass asks for a real card, so a step of training runs on the
`meta` device, which refuses other devices' tensors as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from harness.config.discovery import samplers
from harness.sampling.sample import GuidedDenoiser
from harness.sampling.samplers import build_sampler
from harness.sampling.samplers.base import Sampler
from models.attention import load_variant, variant_names
from models.attention.base import ValueConvolutionConfig
from models.backbone import Backbone, BackboneConfig
from models.diffusion_module import Batch, DiffusionModule, Optimization
from models.errors import UserError
from models.objectives import build_objective, objective_config, objective_names
from models.objectives.base import ObjectiveConfig

GPU, META = torch.device("cuda", 0), torch.device("meta")
BATCH = 4

ROWS = {name: {} for name in variant_names()} | {
    "dydila-gate": {"router_gradient": "gate", "normalizer": "unit"},
    "dydila-rms": {"normalizer": "rms", "kernel_sharing_roles": "shared"},
    "dydila-absolute": {"normalizer": "absolute", "kernel_per_head": True},
    "dydila-static": {"projection": "static", "kernel": "static", "differential": "static"},
    "dydila-relu": {"kernel": "relu", "differential": "off"},
    "dydila-balanced": {"load_balance_weight": 0.1},
}


def fitting(name: str, objectives: list[ObjectiveConfig]) -> Iterator[Sampler]:
    """The sampler of a name, for the objective that it solves."""
    for objective in objectives:
        with suppress(UserError):
            yield build_sampler(name, 4, objective)


@pytest.fixture(params=ROWS)
def network(
    request: pytest.FixtureRequest, backbone_config: Callable[..., BackboneConfig]
) -> Backbone:
    """Each variant, with everything that a block may have."""
    variant, fields = request.param.partition("-")[0], ROWS[request.param]
    config = backbone_config(
        attention=load_variant(variant).config(**fields),
        qk_norm=True,
        value_convolution=ValueConvolutionConfig(size=5, initialization="zero"),
        feedforward="mix",
    )
    return Backbone(config, seed=0)


def test_a_network_predicts_and_is_guided_where_its_weights_are(network: Backbone) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        network.to(GPU)
        images, times = torch.empty(BATCH, 4, 8, 8, device=GPU), torch.empty(BATCH, device=GPU)
        labels = torch.zeros(BATCH, dtype=torch.int64, device=GPU)
        predicted = network(images, times, labels)
        guided = GuidedDenoiser(network, 4.0, None, 4)(images, times, labels)
    assert predicted.device == guided.device == GPU
    assert predicted.shape == (BATCH, 8, 8, 8)


@pytest.mark.parametrize("name", objective_names())
def test_an_objective_noises_and_scores_where_the_images_are(name: str) -> None:
    objective = build_objective(objective_config(name)())
    times = objective.draw_times(BATCH, torch.Generator())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        images = torch.empty(BATCH, 3, 4, 4, device=GPU)
        noise, there = torch.empty_like(images), mode.from_tensor(times).to(GPU)
        noised = objective.add_noise(images, noise, there)
        prediction = torch.empty(BATCH, 3 * objective.variance_channels, 4, 4, device=GPU)
        loss = objective.loss(prediction, images, noise, there)
    assert noised.images.device == noised.timesteps.device == loss.device == GPU


@pytest.mark.parametrize("name", samplers())
def test_a_sampler_steps_where_the_network_predicts(name: str) -> None:
    objectives = [objective_config(name)() for name in objective_names()]
    (sampler,) = fitting(name, objectives)
    streams = [torch.Generator() for _ in range(BATCH)]
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.empty(BATCH, 3, 4, 4, device=GPU)
        try:
            for evaluation in range(len(sampler.timesteps)):
                images = sampler.step(evaluation, torch.empty_like(images), images, streams)
        except (DataDependentOutputException, DynamicOutputShapeException):
            pytest.skip("diffusers' scheduler decides by its own times, which fake tensors lack")
    assert images.device == GPU


def test_a_tensor_of_the_wrong_device_is_seen(
    backbone_config: Callable[..., BackboneConfig],
) -> None:
    network = Backbone(backbone_config(), seed=0)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        network.to(GPU)
        images, times = torch.empty(BATCH, 4, 8, 8, device=GPU), torch.empty(BATCH)
        labels = torch.zeros(BATCH, dtype=torch.int64, device=GPU)
        with pytest.raises(RuntimeError, match="device"):
            network(images, times, labels)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_of_training_stays_on_its_device(
    network: Backbone, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The meta device has no autocast to be asked about and switched off.
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_more: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _device: False)
    settings = Optimization(
        learning_rate=1e-3, factor_learning_rate=2.0, warmup_steps=0, betas=(0.9, 0.99),
        weight_decay=0.0, gradient_clip=0.0, ema_decay=0.9, label_dropout=0.5, batch_size=BATCH,
        accumulate=accumulate,
    )  # fmt: skip
    objective = build_objective(objective_config("ddpm")())
    module = DiffusionModule(network, objective, settings, seed=0).to(META)
    batch = Batch(
        torch.empty(BATCH, 4, 8, 8, device=META),
        torch.zeros(BATCH, dtype=torch.int64, device=META),
        # Their values say which noise a step has, and the meta device keeps none.
        torch.arange(BATCH),
    )
    module.log = lambda *_args, **_more: None
    module.training_step(batch, 0)["loss"].backward()
    torch.nn.utils.clip_grad_norm_(module.backbone.parameters(), 1.0)
    gradients = [weight.grad for weight in module.backbone.parameters()]
    assert all(part is not None and part.device == META for part in gradients)
