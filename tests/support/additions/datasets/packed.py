"""A data set: all images of a source, decoded at once."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from harness.config.sections import DataConfig
from harness.data.datasets.base import hold_out
from harness.data.images import DataSet, LabelledImages
from harness.data.sources import open_source


def check(config: DataConfig) -> None:
    open_source(Path(str(config.path)))


def content(config: DataConfig) -> str:
    return Path(str(config.path)).read_text().strip().lower().replace(" ", "-")


def load(config: DataConfig) -> DataSet:
    source = open_source(Path(str(config.path)))
    entries = source.entries()
    images = [np.array(Image.open(io.BytesIO(source.read(entry.id)))) for entry in entries]
    labels = torch.tensor([entry.label for entry in entries])
    pixels = torch.from_numpy(np.stack(images))[:, None]
    return hold_out(LabelledImages(pixels, labels, source.class_ids), config.held_out, "packed")
