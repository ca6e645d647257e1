"""Drawing samples against diffusers' own pipelines, with the same network and noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor, nn

from harness.config.sections import SampleConfig
from harness.sampling.sample import SampleSpec, draw_samples
from models.objectives.ddpm import Config
from models.randomness import generator

SEED, COUNT, STEPS = 3, 4, 10


class Unlabelled(nn.Module):
    """A diffusers network without classes, seen as one with."""

    null_label = 0

    def __init__(self, network: UNet2DModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        prediction: Tensor = self.network(images, timesteps).sample
        return prediction


def tiny_network(out_channels: int) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=out_channels,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    ).eval()


def ours(network: UNet2DModel, sampler: str) -> np.ndarray:
    config = SampleConfig.model_validate(
        {
            "sampler": sampler,
            "steps": STEPS,
            "guidance_scale": 1.0,
            "guidance_channels": None,
            "labels": "balanced",
            "grid_images": 1,
            "batch_size": 3,
        }
    )
    samples = draw_samples(
        Unlabelled(network).eval(),
        SampleSpec(config, Config(), shape=(1, 8, 8), num_classes=1, count=COUNT, seed=SEED),
        "cpu",
    )
    return samples.images.astype(int)


def theirs(pipeline: DDIMPipeline | DDPMPipeline) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    streams = [generator("sample-noise", SEED, index) for index in range(COUNT)]
    images = pipeline(
        batch_size=COUNT, generator=streams, num_inference_steps=STEPS, output_type="np"
    ).images
    return (images * 255).round().astype(int)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_images_are_those_of_the_pipeline(sampler: str) -> None:
    if sampler == "ddim":
        network = tiny_network(1)
        scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
        expected = theirs(DDIMPipeline(network, scheduler))
    else:
        network = tiny_network(2)
        scheduler = DDPMScheduler(
            clip_sample=False, timestep_spacing="linspace", variance_type="learned_range"
        )
        expected = theirs(DDPMPipeline(network, scheduler))
    drawn = ours(network, sampler)
    assert drawn.std() > 10
    assert np.abs(drawn - expected).max() <= 1
    assert (drawn != expected).mean() < 0.02
