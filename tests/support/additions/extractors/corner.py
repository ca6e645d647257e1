"""An extractor whose features are the pixels of a corner."""

from pathlib import Path

from torch import Tensor

from harness.evaluation.extractors.base import Extracted, FeatureExtractor

WEIGHTS = "refused"


class Corner(FeatureExtractor):
    """Takes 8x8 images."""

    name = display = "corner"
    weights_sha256 = "ab" * 32
    resize = "none"
    feature_size, classes = 4, 3

    def extract(self, images: Tensor) -> Extracted:
        pixels = images[..., 0].float().flatten(1) / 255
        return Extracted(pixels[:, :4], pixels[:, 8:11])


def load(weights: Path | None) -> FeatureExtractor:
    return Corner()


def check(weights: Path | None) -> None:
    """There is nothing to miss."""
