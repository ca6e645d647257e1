from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode

from harness.config.schema import TrialConfig
from harness.evaluation.cost import (
    images_per_second,
    model_cost,
    peak_tensor_bytes,
    training_step_bytes,
)
from harness.training.build import build_backbone, build_module
from models.attention import load_variant, variant_names
from models.backbone import Backbone


def backbone(
    trial_config: Callable[..., TrialConfig],
    variant: str,
    size: str,
    shape: tuple[int, int, int],
    classes: int,
) -> Backbone:
    config = trial_config(
        "softmax",
        f"model.size={size}",
        "model.patch_size=2",
        "model.value_convolution.size=0",
        "objective.name=ddpm",
        "sample.sampler=ddim",
    )
    attention = load_variant(variant).config(name=variant)
    other = config.model_copy(update={"attention": attention})
    return build_backbone(other, shape, classes).eval()


class ByHand(nn.Module):
    """One linear layer, one depth-wise convolution, attention, and an embedding, which is free."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 6)
        self.linear = nn.Linear(6, 7)
        self.convolution = nn.Conv2d(4, 4, 3, padding=1, groups=4)

    def forward(self, images: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        self.linear(self.embedding(labels) + timesteps.view(-1, 1))
        tokens = self.convolution(images).flatten(2).transpose(1, 2).unsqueeze(1)
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)


def test_equals_a_count_by_hand() -> None:
    cost = model_cost(ByHand(), (4, 8, 8), 5)
    linear, convolution, attention = 6 * 7, 64 * 4 * 9, 2 * 64 * 64 * 4
    assert cost.macs == linear + convolution + attention
    assert cost.flops == 2 * cost.macs
    assert cost.parameters == 5 * 6 + (6 * 7 + 7) + (4 * 9 + 4)


@pytest.mark.parametrize(("size", "published"), [("S", 6.06), ("XL", 118.66)])
def test_equals_the_published_figures_of_dit(trial_config, size: str, published: float) -> None:
    """GMACs at 256 pixels, that is latents of 32x32."""
    with torch.device("meta"):
        network = backbone(trial_config, "softmax", size, (4, 32, 32), 1000)
    cost = model_cost(network, (4, 32, 32), 1000)
    assert cost.macs / 1e9 == pytest.approx(published, rel=2e-3)


@pytest.mark.parametrize("variant", [name for name in variant_names() if name != "softmax"])
def test_equals_the_count_of_a_real_pass(trial_config, variant: str) -> None:
    """Softmax is left out: on a CPU the counter does not see inside of its fused kernel."""
    network = backbone(trial_config, variant, "tiny", (1, 8, 8), 10)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.long))
    cost = model_cost(network, (1, 8, 8), 10)
    assert cost.flops == counter.get_total_flops()
    assert cost.parameters == sum(parameter.numel() for parameter in network.parameters())


def test_the_network_stays_as_it_is(trial_config) -> None:
    network = backbone(trial_config, "softmax", "tiny", (1, 8, 8), 10)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    model_cost(network, (1, 8, 8), 10)
    for name, value in network.state_dict().items():
        assert type(value) is Tensor
        assert value.device.type == "cpu"
        assert torch.equal(value, before[name])


BATCH = 16


def counted(config: TrialConfig, images: int = BATCH) -> int:
    return training_step_bytes(build_module(config, (1, 8, 8), 10), images, half=False)


def really_allocated(config: TrialConfig) -> int:
    """Weights, EMA and two moments, and the peak of a step of training that is computed."""
    module = build_module(config, (1, 8, 8), 10)
    images, noise = torch.rand(BATCH, 1, 8, 8), torch.randn(BATCH, 1, 8, 8)
    times = module.objective.draw_times(BATCH, torch.Generator())
    labels = torch.zeros(BATCH, dtype=torch.int64)

    def step() -> None:
        mixed = module.objective.add_noise(images, noise, times)
        prediction = module.backbone(mixed.images, mixed.timesteps, labels)
        module.objective.loss(prediction, images, noise, times).mean().backward()

    weights = sum(weight.numel() * 4 for weight in module.backbone.parameters())
    return 4 * weights + peak_tensor_bytes(step, torch.device("cpu"))


@pytest.mark.parametrize("variant", ["softmax", "sana", "dydila"])
@pytest.mark.parametrize("fields", [(), ("objective.name=ddpm", "sample.sampler=ddim")])
def test_the_memory_of_a_training_step_is_that_of_one_which_is_computed(
    variant: str, fields: tuple[str, ...], trial_config: Callable[..., TrialConfig]
) -> None:
    config = trial_config(variant, *fields)
    # How many tokens each of DyDiLA's projectors gets is a matter of values.
    assert counted(config) == pytest.approx(really_allocated(config), rel=0.02)


def test_memory_grows_with_images_and_shrinks_without_activations(
    trial_config: Callable[..., TrialConfig],
) -> None:
    config = trial_config("dydila")
    one, two, three = (counted(config, images) for images in (BATCH, 2 * BATCH, 3 * BATCH))
    assert three - two == pytest.approx(two - one, rel=0.02)
    assert counted(trial_config("dydila", "train.activation_checkpointing=true")) < one


def test_is_the_median_after_warm_up() -> None:
    intervals = [(64, 8.0), (64, 2.0), (64, 1.0), (32, 1.0), (64, 64.0)]
    assert images_per_second(intervals, warmup=1) == 32
    assert images_per_second(intervals, warmup=2) == 32
    assert images_per_second(intervals, warmup=3) == (32 + 1) / 2


def test_the_last_interval_counts_where_all_are_warm_up() -> None:
    assert images_per_second([(10, 5.0), (12, 2.0)], warmup=2) == 6
    assert images_per_second([(10, 5.0)], warmup=10) == 2


def test_nothing_measured_has_no_speed() -> None:
    assert images_per_second([], warmup=0) is None


@pytest.mark.parametrize("interval", [(0, 1.0), (5, 0.0), (5, -1.0)])
def test_empty_intervals_are_refused(interval: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="interval"):
        images_per_second([(5, 1.0), interval], warmup=0)


CPU = torch.device("cpu")
KIB = 256
"""Floats of float32 in one KiB."""


def test_tensors_that_are_alive_together_are_added_and_freed_ones_are_not() -> None:
    given = torch.zeros(100 * KIB)

    def work() -> Tensor:
        first = given + 1
        second = first + 1
        del first
        return (second + 1).view(10, -1)[0]

    assert peak_tensor_bytes(work, CPU) == 2 * 100 * 1024


def test_views_and_operations_in_place_take_no_memory() -> None:
    given = torch.zeros(KIB)
    assert peak_tensor_bytes(lambda: given.view(2, -1).t().add_(1), CPU) == 0


def test_a_training_step_agrees_with_pytorchs_tracker() -> None:
    layers = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
    inputs = torch.randn(512, 64)

    def step() -> None:
        layers(inputs).square().mean().backward()
        layers.zero_grad()

    step()
    ours = peak_tensor_bytes(step, CPU)
    with MemTracker() as tracker:
        step()
    total = next(iter(tracker.get_tracker_snapshot("peak").values()))["Total"]
    weights = sum(parameter.numel() for parameter in layers.parameters()) * 4
    assert ours == total - weights


def test_memory_of_attention_grows_with_tokens_as_its_matrix_does() -> None:
    def weights(tokens: int) -> int:
        rows = torch.zeros(tokens, 8)
        return peak_tensor_bytes(lambda: (rows @ rows.T).softmax(dim=-1), CPU)

    assert weights(64) == 2 * 64 * 64 * 4
    assert weights(128) == 4 * weights(64)
