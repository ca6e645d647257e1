"""What samples are compared with, wherever it comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.metrics.frechet import Gaussian

_SHOWN_DIGITS = 12


@dataclass(frozen=True)
class ReferenceStatistics:
    """Real images as one extractor sees them."""

    extractor: str
    weights_sha256: str | None
    """None where it was not recorded."""
    resize: str | None
    """None where it was not recorded."""
    fingerprint: str
    """A hash of the images, or of the file where that is all that is known."""
    images: int | None
    """How many the Gaussians were fitted to; None where it was not recorded."""
    gaussian: Gaussian
    spatial: Gaussian | None
    """Of the spatial features; None where there are none."""
    features: NDArray[np.float32] | None
    """(M, D), of all images or of some; None where there are none."""

    def mismatch(self, extractor: FeatureExtractor) -> str | None:
        """In what way it does not belong to what an extractor gives; None where it does."""
        theirs = (self.extractor, self.weights_sha256, self.resize)
        ours = (extractor.name, extractor.weights_sha256, extractor.resize)
        if all(their in (None, our) for their, our in zip(theirs, ours, strict=True)):
            return None
        return (
            f"the reference is from {_shown(*theirs)}, the samples are measured with "
            f"{_shown(*ours)}"
        )


def _shown(name: str, weights: str | None, resize: str | None) -> str:
    return f"{name} (weights {(weights or 'not recorded')[:_SHOWN_DIGITS]}, resize {resize})"
