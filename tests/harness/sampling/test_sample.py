from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness.config.schema import TrialConfig
from harness.config.sections import SampleConfig
from harness.data.images import to_uint8
from harness.processes.progress import Progress
from harness.sampling.sample import GuidedDenoiser, Samples, SampleSpec, draw_samples, sample_labels
from harness.training.build import build_backbone
from models.backbone import Backbone
from models.errors import UserError
from models.objectives.ddpm import Config as DdpmConfig
from models.objectives.flow import Config as FlowConfig
from models.randomness import generator

SHAPE = (1, 8, 8)


FLOW, DDPM = FlowConfig(), DdpmConfig()


def sample_config(**changes: object) -> SampleConfig:
    values = {
        "sampler": "flow_euler",
        "steps": 4,
        "guidance_scale": 1.0,
        "guidance_channels": None,
        "labels": "balanced",
        "grid_images": 1,
        "batch_size": 4,
    }
    return SampleConfig.model_validate({**values, **changes})


def random_backbone(trial_config: Callable[..., TrialConfig], objective: str = "flow") -> Backbone:
    """A real one, with weights that are not zero where training would start from zero."""
    sampler = "flow_euler" if objective == "flow" else "ddim"
    overrides = [f"objective.name={objective}", f"sample.sampler={sampler}", "model.depth=2"]
    backbone = build_backbone(trial_config("softmax", *overrides), SHAPE, num_classes=3)
    stream = generator("test-weights")
    with torch.no_grad():
        for parameter in backbone.parameters():
            scale = 0.7 * parameter.shape[-1] ** -0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=stream))
    return backbone.eval()


class Recorder(nn.Module):
    """Keeps what it is called with; predicts a constant."""

    null_label = 3

    def __init__(self, value: float, channels: int = 1) -> None:
        super().__init__()
        self.value = value
        self.channels = channels
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []
        self.modes: list[bool] = []
        self.eval()

    def forward(self, images: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        self.calls.append((images.clone(), timesteps.clone(), labels.clone()))
        self.modes.append(torch.is_inference_mode_enabled())
        return torch.full_like(images, self.value).repeat(1, self.channels, 1, 1)


def draw(network: nn.Module, config: SampleConfig, count: int = 7, seed: int = 5) -> Samples:
    objective = FLOW if config.sampler.startswith("flow_") else DDPM
    return draw_samples(
        network,
        SampleSpec(config, objective, shape=SHAPE, num_classes=3, count=count, seed=seed),
        "cpu",
    )


def starting_noise(network: Recorder, batches: int) -> Tensor:
    calls = len(network.calls) // batches
    return torch.cat([network.calls[batch * calls][0] for batch in range(batches)])


@pytest.mark.parametrize("sampler", ["flow_euler", "flow_heun", "ddim", "dpm_solver", "ddpm"])
def test_samples_do_not_depend_on_the_batch_size(trial_config, sampler: str) -> None:
    network = random_backbone(trial_config, "flow" if sampler.startswith("flow_") else "ddpm")
    config = {"sampler": sampler, "guidance_scale": 1.5, "steps": 5}
    one, three, all_at_once = (
        draw(network, sample_config(batch_size=size, **config)) for size in (1, 3, 7)
    )
    assert one.images.std() > 20
    for other in (three, all_at_once):
        difference = one.images.astype(int) - other.images.astype(int)
        assert np.abs(difference).max() <= 1
        assert (difference != 0).mean() < 0.01
        assert np.array_equal(one.labels, other.labels)


def test_starting_noise_and_labels_are_the_same_for_every_network_and_batch_size() -> None:
    first, second = Recorder(0.1), Recorder(-0.4)
    draw(first, sample_config(batch_size=7, labels="uniform"))
    draw(second, sample_config(batch_size=2, labels="uniform", sampler="flow_heun"))
    assert torch.equal(starting_noise(first, 1), starting_noise(second, 4))
    labels = torch.cat([call[2] for call in second.calls[:: len(second.calls) // 4]])
    assert torch.equal(first.calls[0][2], labels)


def test_starting_noise_is_standard_normal_and_differs_between_samples_and_seeds() -> None:
    first, second = Recorder(0.0), Recorder(0.0)
    draw(first, sample_config(batch_size=200), count=200, seed=1)
    draw(second, sample_config(batch_size=200), count=200, seed=2)
    noise, other = first.calls[0][0], second.calls[0][0]
    assert noise.mean().item() == pytest.approx(0, abs=0.03)
    assert noise.std().item() == pytest.approx(1, abs=0.03)
    assert len(noise.flatten(1).unique(dim=0)) == 200
    assert not torch.isclose(noise, other).any()


def test_fewer_samples_are_the_first_of_more(trial_config) -> None:
    network = random_backbone(trial_config)
    config = sample_config(labels="uniform", batch_size=5)
    few, many = draw(network, config, count=5), draw(network, config, count=10)
    assert np.array_equal(few.images, many.images[:5])
    assert np.array_equal(few.labels, many.labels[:5])


def test_fresh_noise_of_a_stochastic_sampler_does_not_depend_on_the_batch_size() -> None:
    config = {"sampler": "ddpm", "steps": 3}
    one, many = Recorder(0.0, 2), Recorder(0.0, 2)
    draw(one, sample_config(batch_size=1, **config), count=4)
    draw(many, sample_config(batch_size=4, **config), count=4)
    last_of_one = torch.cat([one.calls[3 * sample + 2][0] for sample in range(4)])
    torch.testing.assert_close(last_of_one, many.calls[2][0], atol=1e-6, rtol=0)


def test_the_network_is_told_a_thousand_times_the_flow_time_in_inference_mode() -> None:
    network = Recorder(0.0)
    draw(network, sample_config(batch_size=7))
    told = [call[1] for call in network.calls]
    assert [timestep.shape for timestep in told] == [(7,)] * 4
    assert [timestep[0].item() for timestep in told] == pytest.approx([1000, 750, 500, 250])
    assert all(network.modes)


def test_a_constant_velocity_moves_the_noise_by_that_much() -> None:
    network = Recorder(0.5)
    samples = draw(network, sample_config(batch_size=7))
    expected = to_uint8(network.calls[0][0] - 0.5).permute(0, 2, 3, 1).numpy()
    assert np.abs(samples.images.astype(int) - expected.astype(int)).max() <= 1


def test_evaluations_batches_and_seconds_are_reported() -> None:
    network = Recorder(0.0)
    seen: list[Progress] = []
    samples = draw_samples(
        network,
        SampleSpec(
            sample_config(sampler="flow_heun", steps=3, guidance_scale=2.0),
            FLOW,
            shape=SHAPE,
            num_classes=3,
            count=7,
            seed=0,
        ),
        "cpu",
        on_progress=seen.append,
    )
    assert samples.network_evaluations == 2 * 5
    assert [count for count, _ in samples.batches] == [4, 3]
    assert 0 < sum(seconds for _, seconds in samples.batches) <= samples.seconds
    assert seen == [Progress("sample", 4, 7), Progress("sample", 7, 7)]
    assert samples.images.shape == (7, 8, 8, 1)
    assert samples.images.dtype == np.uint8


def test_balanced_labels_go_round_the_classes() -> None:
    assert sample_labels("balanced", 7, 3, seed=0).tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_uniform_labels_are_even_and_follow_the_seed() -> None:
    labels = sample_labels("uniform", 3000, 3, seed=0)
    assert labels.bincount(minlength=3).min() > 900
    assert torch.equal(labels[:50], sample_labels("uniform", 50, 3, seed=0))
    assert not torch.equal(labels[:50], sample_labels("uniform", 50, 3, seed=1))


def test_every_level_survives_the_way_to_the_network_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(levels.float() / 127.5 - 1), levels)


def test_pixels_are_rounded_and_clipped() -> None:
    x = torch.linspace(-1.3, 1.3, 4001, dtype=torch.float64)
    nearest = ((x + 1) * 127.5).clamp(0, 255)
    assert (to_uint8(x).double() - nearest).abs().max() <= 0.5 + 1e-9
    assert to_uint8(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


def test_a_sample_that_is_not_finite_is_named() -> None:
    class Breaks(Recorder):
        def forward(self, images: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
            prediction = super().forward(images, timesteps, labels)
            if len(self.calls) > 4:
                prediction[labels == 2, 0, 3, 3] = float("nan")
            return prediction

    with pytest.raises(UserError, match=r"sample 5 \(class 2\) has pixels that are not finite"):
        draw(Breaks(0.0), sample_config(batch_size=4), count=8)


def test_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="eval"):
        draw(Recorder(0.0).train(), sample_config())


NULL = 3


class LabelEcho:
    """Predicts images + label in the first half of channels, timestep * label in the second."""

    null_label = NULL
    training = False

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        self.batches.append(len(images))
        value = labels.float().view(-1, 1, 1, 1)
        return torch.cat([images + value, images * 0 + timesteps.view(-1, 1, 1, 1) * value], dim=1)


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    images = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    return images, torch.tensor([10.0, 20.0, 30.0]), torch.tensor([0, 1, 2])


def test_scale_one_is_a_single_unguided_call(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    network = LabelEcho()
    guided = GuidedDenoiser(network, 1.0, None, 4)(*inputs)
    assert network.batches == [3]
    assert torch.equal(guided, LabelEcho()(*inputs))


def test_guidance_is_one_call_of_twice_the_batch(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    network = LabelEcho()
    guided = GuidedDenoiser(network, 1.5, None, 4)
    guided(*inputs)
    assert network.batches == [6]
    assert guided.passes == 2


@pytest.mark.parametrize("scale", [0.0, 0.7, 1.5, 4.0])
@pytest.mark.parametrize("channels", [None, 3])
def test_predictions_move_away_from_the_unconditional_ones(
    inputs: tuple[Tensor, Tensor, Tensor], scale: float, channels: int | None
) -> None:
    images, _timesteps, labels = inputs
    guided = GuidedDenoiser(LabelEcho(), scale, channels, 4)(*inputs)
    label = labels.float().view(-1, 1, 1, 1)
    first = 4 if channels is None else channels
    torch.testing.assert_close(
        guided[:, :first], (images + NULL + scale * (label - NULL))[:, :first]
    )
    torch.testing.assert_close(guided[:, first:4], (images + label)[:, first:])


def test_variance_channels_stay_conditional(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    guided = GuidedDenoiser(LabelEcho(), 4.0, None, 4)(*inputs)
    assert torch.equal(guided[:, 4:], LabelEcho()(*inputs)[:, 4:])


def test_more_guided_channels_than_images_have_are_refused() -> None:
    with pytest.raises(UserError, match=r"sample.guidance_channels is 5"):
        GuidedDenoiser(LabelEcho(), 1.5, 5, 4)
