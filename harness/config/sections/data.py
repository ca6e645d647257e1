"""Which images a trial sees."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from harness.config.sections.section import Section, added_later, without_effect


class DataConfig(Section):
    """Which images, and how many of them are held out of training."""

    name: Literal["cifar10", "digits", "images"]
    path: str | None = without_effect(
        description="folder, archive or shards of images; null where none is needed"
    )
    manifest: str | None = without_effect(
        None,
        description="JSON of `harness data make-manifest`: which of the images; for name images",
    )
    latents: str | None = without_effect(
        None, description="folder of `harness data encode`; null trains on pixels"
    )
    autoencoder: str | None = without_effect(
        None,
        description="folder or hub name of the one that the latents come from, to decode samples",
    )
    content: str | None = added_later(
        None,
        description="hash of images and latents, filled in from what the paths name; one that is "
        "written down must be met",
    )
    resolution: int = Field(ge=4, le=1024, description="pixels a side")
    downsampling: int = added_later(
        1, ge=1, le=64, description="pixels a side of one latent; 1 without latents"
    )
    held_out: int = Field(ge=2, description="images kept for the validation loss and the floor")
    horizontal_flip: bool
    workers: int = without_effect(ge=0, le=64, description="loader processes")

    @property
    def side(self) -> int:
        """Rows and columns of what the network sees."""
        return self.resolution // self.downsampling

    @model_validator(mode="after")
    def _latents_fit(self) -> DataConfig:
        problems = []
        if self.resolution % self.downsampling:
            problems.append(
                f"data.downsampling must divide data.resolution, but "
                f"{self.resolution} / {self.downsampling} leaves a rest"
            )
        if self.latents is None and self.downsampling != 1:
            problems.append(
                f"data.downsampling is {self.downsampling}, but data.latents is null: name the "
                "folder of latents, or set data.downsampling=1 to train on pixels"
            )
        if self.name != "images":
            problems += [
                f"data.{key} is of no use with data.name={self.name}: set it to null"
                for key in ("manifest", "latents")
                if getattr(self, key) is not None
            ]
        if problems:
            raise ValueError("\n".join(problems))
        return self
