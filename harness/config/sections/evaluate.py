"""What samples are measured by."""

from __future__ import annotations

from typing import Annotated, Literal

import annotated_types
from pydantic import Field, model_validator

from harness.config.sections.section import Section, without_effect

Extractor = (
    Literal["efficientnet_lite0", "inception"]
    | Annotated[
        str,
        Field(pattern=r"^torch:[A-Za-z0-9_][A-Za-z0-9_.-]*$"),
        annotated_types.doc("torch:MODEL, a model of timm"),
    ]
)


class EvaluateConfig(Section):
    """Which features the samples are measured with, and how many samples."""

    extractor: Extractor
    extractor_weights: str | None = without_effect(
        None,
        description="file of the extractor's weights, whose hash stands beside every figure; null "
        "takes its own where it has some",
    )
    samples: int = Field(ge=2)
    reference_images: int | None = Field(
        ge=2, description="training images to compare with, a fixed random choice; null takes all"
    )
    inception_splits: int = Field(ge=1, description="splits of the Inception-style score")
    probe_images: int = Field(
        ge=0, description="held-out images for the attention probe; 0 switches it off"
    )
    batch_size: int = without_effect(ge=1)

    @model_validator(mode="after")
    def _weights_fit_the_extractor(self) -> EvaluateConfig:
        if self.extractor.startswith("torch:") and self.extractor_weights is None:
            raise ValueError(
                f"evaluate.extractor={self.extractor} needs a file of weights: name it in "
                "evaluate.extractor_weights"
            )
        if self.extractor == "efficientnet_lite0" and self.extractor_weights is not None:
            raise ValueError(
                "evaluate.extractor_weights is of no use with "
                f"evaluate.extractor={self.extractor}: set it to null"
            )
        return self
