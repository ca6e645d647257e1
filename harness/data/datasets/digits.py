"""Handwritten digits that come with scikit-learn: 1,797 grey images of 8x8 pixels, 10 classes.

Source: the test part of the UCI Optical Recognition of Handwritten Digits set (Alpaydin and
Kaynak 1998). Pixels are 0..16 there and are scaled to 0..255 here.
"""

from __future__ import annotations

import numpy as np
import torch

from harness.config.sections import DataConfig
from harness.data.datasets.base import check_held_out, check_side, hold_out
from harness.data.images import DataSet, LabelledImages


def check(config: DataConfig) -> None:
    """See that the configuration fits the digits, which are always there. Raises a UserError if it
    asks for another resolution, or for more held-out images than there are."""
    check_side(config, 8, "the digits")
    check_held_out(config.held_out, 1797)


def content(config: DataConfig) -> None:
    """None: the images come with scikit-learn and never change."""


def load(config: DataConfig) -> DataSet:
    """The digits, held-out images drawn evenly from the classes. Raises a UserError if it asks for
    another resolution, or for more held-out images than there are."""
    from sklearn.datasets import load_digits

    check(config)
    digits = load_digits()
    pixels = np.rint(digits.images * (255.0 / 16.0)).astype(np.uint8)
    images = torch.from_numpy(pixels)[:, None]
    labels = torch.from_numpy(digits.target.astype(np.int64))
    names = tuple(str(name) for name in digits.target_names)
    return hold_out(LabelledImages(images, labels, names), config.held_out, "digits")
