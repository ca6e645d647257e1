"""What each process does in the tests of groups of processes."""

from __future__ import annotations

import os
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.config.sections import SampleConfig
from harness.evaluation.features import Extraction, extract_features
from harness.evaluation.image_inputs import FolderImages, HashedRows, ImageInput
from harness.evaluation.quality import evaluate_samples
from harness.evaluation.reference import RealImages, load_reference
from harness.evaluation.reference_file import Layout, build_reference
from harness.processes.group import ALONE, ProcessGroup, in_rounds, own_turns
from harness.processes.progress import Progress
from harness.sampling.files import FileSink
from harness.sampling.sample import SampleSpec, draw_samples
from harness.sampling.samplers import diffusion, flow
from models.objectives.ddpm import Config as DdpmConfig
from models.objectives.flow import Config as FlowConfig
from tests.support.stand_ins import digit_images
from tests.support.stand_ins.pixel_extractor import PixelExtractor

DIGITS = digit_images.DIGITS[..., None]
BATCH = 16
SAMPLERS = (diffusion, flow)
"""Imported here, since the processes of a group are forks of one that has imported this module."""


def measure(group: ProcessGroup, count: int, cache: Path) -> dict[str, Any] | None:
    """All figures of `count` digits, and how often the leading process told of progress."""
    extractor, seen = PixelExtractor(), list[Progress]()
    extraction = Extraction(extractor, BATCH, "cpu", group)
    reference = load_reference(RealImages(DIGITS[500:733], "some digits"), extraction, cache)
    heard = replace(extraction, on_progress=seen.append)
    quality = evaluate_samples(DIGITS[:count], reference, heard, inception_splits=3)
    if quality is None:
        assert not seen
        assert len(reference.features) == 0
        return None
    told = [progress.done for progress in seen if progress.stage == "features"]
    return {**asdict(quality), "told": told, "own": sum(map(len, extractor.seen))}


def build(group: ProcessGroup, path: Path, layout: Layout, single_images: int) -> dict[str, Any]:
    """A reference of 77 digits."""
    extraction = Extraction(PixelExtractor(), BATCH, "cpu", group)
    images = ImageInput(DIGITS[:77], "digits")
    return build_reference(images, extraction, path, layout=layout, single_images=single_images)


def hash_images(group: ProcessGroup, count: int) -> str:
    """Of digits that the processes read in turns."""
    rows = HashedRows(DIGITS[:count])
    for turn in own_turns(count, group):
        rows[turn : turn + 1]
    return rows.sha256(group)


class Network(nn.Module):
    """Depends on its input and its labels; stops after some calls, as a killed process would."""

    null_label = 10

    def __init__(self, calls: int | None, channels: int) -> None:
        super().__init__()
        self.left = calls
        self.channels = channels

    def forward(self, images: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyError("stopped")
        found = images * labels.view(-1, 1, 1, 1) / 9 + timesteps.view(-1, 1, 1, 1) / 1000
        return found.repeat(1, self.channels, 1, 1)


def draw(group: ProcessGroup, config: SampleConfig, folder: Path, calls: int | None) -> np.ndarray:
    """Samples of 23 indices, through a file."""
    flow = config.sampler.startswith("flow_")
    samples = draw_samples(
        # With DDPM, a network predicts a variance as well.
        Network(calls, 1 if flow else 2).eval(),
        SampleSpec(
            config,
            FlowConfig() if flow else DdpmConfig(),
            shape=(1, 4, 4),
            num_classes=10,
            count=23,
            seed=5,
        ),
        "cpu",
        sink=FileSink(folder, 23, "trial") if group.leads else None,
        group=group,
    )
    if group.leads:
        assert all(0 < count <= group.size * config.batch_size for count, _ in samples.batches)
    return np.array(samples.images)


def extract_from(group: ProcessGroup, folder: Path) -> int:
    """How many images of a folder gave features."""
    extraction = Extraction(PixelExtractor(), 4, "cpu", group)
    return len(extract_features(FolderImages(folder), extraction))


def die_at(group: ProcessGroup, rank: int, item: int) -> list[int]:
    """Square ten numbers; one process is killed at one of them."""

    def square(number: int) -> int:
        if (group.rank, number) == (rank, item):
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number

    own = (square(number) for number in own_turns(10, group))
    return [found for together in in_rounds(own, 10, group) for found in together]


def alone(function: Any, *arguments: Any) -> Any:
    """What one process gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(ALONE, *arguments)
    finally:
        torch.set_num_threads(threads)
