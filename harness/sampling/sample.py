"""Drawing samples from a trained network: the same starting noise and labels for every network.

Classifier-free guidance is that of Ho and Salimans 2022.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.config.schema import TrialConfig
from harness.config.sections import SampleConfig
from harness.data.images import to_uint8
from harness.processes.group import ALONE, ProcessGroup, in_rounds, own_turns
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from harness.sampling.files import FileSink
from harness.sampling.samplers import build_sampler
from harness.sampling.samplers.base import Sampler
from models.backbone import Backbone
from models.errors import UserError
from models.objectives.base import ObjectiveConfig
from models.randomness import generator


class GuidedDenoiser:
    """Predictions moved away from those without a class.

    `unconditional + scale * (conditional - unconditional)`, in one call on 2B images. A scale of 1
    changes nothing and makes one call on B images. The channels that tell the variance are never
    guided, and channels that are not guided keep the conditional prediction.

    Args:
        network: predicts C channels, or 2C where the variance is learned.
        scale: 1 is no guidance, 0 leaves only the unconditional prediction.
        channels: guide only the first ones; None guides all C. The original DiT code guides 3 of 4.
        image_channels: C.

    Raises:
        UserError: more channels to guide than images have.
    """

    def __init__(
        self, network: Backbone, scale: float, channels: int | None, image_channels: int
    ) -> None:
        if channels is not None and channels > image_channels:
            raise UserError(
                f"sample.guidance_channels is {channels}, but the images have {image_channels}: "
                "lower it, or set it to null to guide all of them"
            )
        self.network = network
        self.scale = scale
        self.channels = image_channels if channels is None else channels

    @property
    def passes(self) -> int:
        """Forward passes of the network that one prediction of one image costs."""
        return 1 if self.scale == 1 else 2

    def __call__(self, images: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """Predict from images (B, C, H, W), timesteps (B,) in 0..1000 and labels (B,)."""
        if self.scale == 1:
            return self.network(images, timesteps, labels)
        nulls = torch.full_like(labels, self.network.null_label)
        both = self.network(
            torch.cat([images, images]),
            torch.cat([timesteps, timesteps]),
            torch.cat([labels, nulls]),
        )
        conditional, unconditional = both.chunk(2)
        first = slice(self.channels)
        guided = torch.lerp(unconditional[:, first], conditional[:, first], self.scale)
        return torch.cat([guided, conditional[:, self.channels :]], dim=1)


class NonFiniteSamplesError(UserError):
    """A pixel is NaN or infinite."""


@dataclass(frozen=True)
class Samples:
    """Drawn images, in the order of their indices."""

    images: NDArray[np.uint8]
    """(N, H, W, C) on the leading process, none on the others."""
    labels: NDArray[np.int64]
    """(N,)."""
    seconds: float
    """Wall time of drawing those that were not there already."""
    batches: tuple[tuple[int, float], ...]
    """Images and seconds of each batch of those; of several processes, of all their batches that
    were drawn side by side."""
    network_evaluations: int
    """Forward passes of the network that each image took, both passes of guidance counted."""


def sample_labels(
    kind: Literal["balanced", "uniform"], count: int, num_classes: int, seed: int
) -> Tensor:
    """The labels of samples 0..count-1, (count,) int64.

    `balanced` gives sample i the label `i % num_classes`. `uniform` draws it; label i depends on
    the seed and i alone.
    """
    if kind == "balanced":
        return torch.arange(count) % num_classes
    draws = [
        torch.randint(num_classes, (1,), generator=generator("sample-label", seed, index))
        for index in range(count)
    ]
    return torch.cat(draws)


@dataclass(frozen=True)
class SampleSpec:
    """Which images to draw; they depend on nothing else but the network's weights."""

    config: SampleConfig
    objective: ObjectiveConfig
    """What the network was trained for."""
    shape: tuple[int, int, int]
    """C, H, W of what the network sees."""
    num_classes: int
    count: int
    """N, how many images."""
    seed: int
    """Of noise and labels."""

    @classmethod
    def of_trial(cls, config: TrialConfig, network: Backbone, count: int, seed: int) -> SampleSpec:
        """Images as a trial's configuration draws them from its network."""
        shown = network.config
        return cls(
            config.sample, config.objective, shown.image_shape, shown.num_classes, count, seed
        )

    def sampler(self) -> Sampler:
        """A sampler for one batch.

        Raises:
            UserError: the sampler does not fit the objective.
        """
        return build_sampler(self.config.sampler, self.config.steps, self.objective)


def draw_samples(
    network: Backbone,
    spec: SampleSpec,
    device: torch.device | str,
    to_pixels: Callable[[Tensor], Tensor] = to_uint8,
    sink: FileSink | None = None,
    group: ProcessGroup = ALONE,
    on_progress: ProgressListener = ignore_progress,
) -> Samples:
    """Draw images in float32.

    Starting noise, later noise and labels depend on the seed and the sample's index alone: not on
    the network, the batch size or the device. So cell by cell the grids of two networks compare.
    Several processes share out the batches, which are the same ones as one process would draw.

    Args:
        network: in eval mode, on `device`, with float32 weights.
        spec: which images to draw.
        device: where the network is.
        to_pixels: from what the network draws, (B, C, H, W), to uint8 images.
        sink: of the leading process; takes the samples, and says how many are there already. None
            keeps them in memory.
        group: of processes with the same network that call this together.
        on_progress: told after each batch, on the leading process.

    Raises:
        NonFiniteSamplesError: a pixel is not finite.
        UserError: the sampler does not fit the objective.
        ValueError: the network is in training mode.
    """
    if network.training:
        raise ValueError("samples are drawn in eval mode: call network.eval() first")
    config = spec.config
    denoiser = GuidedDenoiser(
        network, config.guidance_scale, config.guidance_channels, spec.shape[0]
    )
    evaluations = len(spec.sampler().timesteps) * denoiser.passes
    labels = sample_labels(config.labels, spec.count, spec.num_classes, spec.seed)
    kept: list[NDArray[np.uint8]] = []
    write, done = (kept.append, 0) if sink is None else (sink.write, sink.done)
    starts = range(group.broadcast(done), spec.count, config.batch_size)
    batches = []
    began = round_began = time.perf_counter()
    own = (
        _draw_batch(denoiser, spec, labels, starts[turn], device, to_pixels)
        for turn in own_turns(len(starts), group)
    )
    for drawn in in_rounds(own, len(starts), group):
        for images in drawn:
            write(images)
        count = sum(map(len, drawn))
        done += count
        batches.append((count, time.perf_counter() - round_began))
        on_progress(Progress("sample", done, spec.count))
        round_began = time.perf_counter()
    seconds = time.perf_counter() - began
    together = np.concatenate(kept) if kept else np.empty((0, 0, 0, 0), dtype=np.uint8)
    images = together if sink is None else sink.images
    return Samples(images, labels.numpy(), seconds, tuple(batches), evaluations)


def _draw_batch(
    denoiser: GuidedDenoiser,
    spec: SampleSpec,
    labels: Tensor,
    start: int,
    device: torch.device | str,
    to_pixels: Callable[[Tensor], Tensor],
) -> NDArray[np.uint8]:
    """The images (B, H, W, C) of the batch that begins with sample `start`."""
    own = labels[start : start + spec.config.batch_size]
    streams = [generator("sample-noise", spec.seed, start + row) for row in range(len(own))]
    noise = torch.stack([torch.randn(spec.shape, generator=stream) for stream in streams])
    sampler = spec.sampler()
    with torch.inference_mode():
        drawn, own_labels = noise.to(device), own.to(device)
        for evaluation, timestep in enumerate(sampler.timesteps.tolist()):
            told = torch.full((len(own),), timestep, device=device)
            prediction = denoiser(drawn, told, own_labels).float()
            drawn = sampler.step(evaluation, prediction, drawn, streams)
        _check_finite(drawn, own, start)
        pixels: NDArray[np.uint8] = to_pixels(drawn).permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def _check_finite(drawn: Tensor, labels: Tensor, start: int) -> None:
    broken = (~drawn.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if not broken:
        return
    first = broken[0]
    raise NonFiniteSamplesError(
        f"sample {start + first} (class {labels[first].item()}) has pixels that are not finite, "
        f"and so have {len(broken) - 1} more of its batch: the network has diverged; lower "
        "train.learning_rate, or set train.precision to 32-true"
    )
