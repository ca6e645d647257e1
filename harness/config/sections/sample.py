"""How samples are drawn."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.config.sections.section import Section, added_later, without_effect

Weights = Literal["last", "best"]
"""Which EMA weights of a training: after its last step, or with the best value of `best_by`."""


class SampleConfig(Section):
    """From the EMA weights to images."""

    sampler: Literal["ddim", "ddpm", "dpm_solver", "flow_euler", "flow_heun"]
    steps: int = Field(ge=1, le=1000)
    guidance_scale: float = Field(ge=0, le=100, description="1 is no guidance")
    guidance_channels: int | None = Field(
        ge=1, description="guide only the first channels; null guides all of them"
    )
    labels: Literal["balanced", "uniform"]
    grid_images: int = Field(ge=1, le=64, description="images a class in the sample grid")
    weights: Weights = added_later(
        "last", description="EMA weights of the last step, or the best ones by train.best_by"
    )
    batch_size: int = without_effect(ge=1)
