"""The typed, closed description of one trial. Values come from `experiments/`, never from here.

Defaults stand in `experiments/base.yaml` alone; only the fields of an attention variant or of an
objective have theirs beside the mathematics they belong to. A field marked `_without_effect`
cannot change a result and stays out of the trial's hash.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from models.attention import build_attention, load_variant, variant_names
from models.attention.base import AttentionConfig, AttentionShape, ValueConvolutionConfig
from models.backbone_sizes import BACKBONE_SIZES
from models.errors import UserError
from models.objectives import objective_config, objective_names
from models.objectives.base import ObjectiveConfig

if TYPE_CHECKING:
    AnyAttention = AttentionConfig
    VariantName = str
    AnyObjective = ObjectiveConfig
else:
    AnyAttention = Annotated[
        reduce(or_, [load_variant(name).config for name in variant_names()]),
        Field(discriminator="name"),
    ]
    VariantName = Literal[variant_names()]
    AnyObjective = Annotated[
        reduce(or_, [objective_config(name) for name in objective_names()]),
        Field(discriminator="name"),
    ]

WITHOUT_EFFECT = "without_effect_on_the_result"


def _without_effect(**constraints: Any) -> Any:
    return Field(json_schema_extra={WITHOUT_EFFECT: True}, **constraints)


class Section(BaseModel):
    """Frozen, with unknown keys, implicit conversions and NaN refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(Section):
    """Which images, and how many of them are held out of training."""

    name: Literal["cifar10", "digits"]
    path: str | None = _without_effect(description="folder or archive; null where none is needed")
    resolution: int = Field(ge=4, le=1024, description="pixels a side")
    held_out: int = Field(ge=2, description="images kept for the validation loss and the floor")
    horizontal_flip: bool
    workers: int = _without_effect(ge=0, le=64, description="loader processes")


class ModelConfig(Section):
    """The diffusion transformer around the attention block. Depth, width and heads of a named
    size can be overridden one by one."""

    size: Literal["tiny", "S", "B", "L", "XL"]
    depth: int = Field(ge=1, le=200)
    width: int = Field(ge=8, le=8192, multiple_of=4)
    heads: int = Field(ge=1, le=256, description="for variants that do not choose their own")
    patch_size: int = Field(ge=1, le=32)
    feedforward: Literal["mlp", "mix"] = Field(description="of DiT, or SANA's with a convolution")
    mlp_ratio: float = Field(gt=0, le=16)
    match_parameters_of: VariantName | None = Field(
        description="widen the feed-forward part until the network has as many parameters as with "
        "this attention variant and its default fields; null leaves it at mlp_ratio"
    )
    positions: Literal["sincos", "none"]
    qk_norm: bool = Field(description="RMSNorm of queries and keys, over all channels")
    label_dropout: float = Field(ge=0, lt=1)
    value_convolution: ValueConvolutionConfig

    @model_validator(mode="before")
    @classmethod
    def _fill_in_named_size(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        # A misspelt size is one mistake; it must not be followed by missing depth, width and heads.
        size = values.get("size")
        named = BACKBONE_SIZES["tiny"]
        if isinstance(size, str):
            named = BACKBONE_SIZES.get(size, named)
        return {"depth": named.depth, "width": named.width, "heads": named.heads, **values}

    @field_validator("heads")
    @classmethod
    def _heads_divide_width(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("width")
        if width is not None and width % heads:
            raise ValueError(
                f"model.heads must divide model.width, but {width} / {heads} leaves a rest"
            )
        return heads


class TrainConfig(Section):
    """Optimisation. One step is one batch of the global batch size."""

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0, le=1)
    warmup_steps: int = Field(ge=0)
    betas: tuple[float, float] = Field(strict=False)
    weight_decay: float = Field(ge=0)
    gradient_clip: float = Field(ge=0, description="largest global norm; 0 switches clipping off")
    ema_decay: float = Field(ge=0, lt=1)
    precision: Literal["auto", "32-true", "bf16-mixed"]
    validate_every: int = Field(ge=1, description="steps between validation losses")
    device: Literal["auto", "cpu", "cuda"] = _without_effect()
    checkpoint_every: int = _without_effect(ge=1, description="steps between checkpoints")
    log_every: int = _without_effect(ge=1, description="steps between logged metrics")

    @field_validator("betas")
    @classmethod
    def _betas_in_unit_interval(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("both betas must lie in [0, 1)")
        return betas


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
    batch_size: int = _without_effect(ge=1)


class EvaluateConfig(Section):
    """Which features the samples are measured with, and how many samples."""

    extractor: Literal["efficientnet_lite0"]
    samples: int = Field(ge=2)
    reference_images: int | None = Field(
        ge=2, description="training images to compare with, a fixed random choice; null takes all"
    )
    inception_splits: int = Field(ge=1, description="splits of the Inception-style score")
    probe_images: int = Field(
        ge=0, description="held-out images for the attention probe; 0 switches it off"
    )
    batch_size: int = _without_effect(ge=1)


class TrialConfig(Section):
    """Everything that one trial depends on."""

    seed: int = Field(ge=0, lt=2**31)
    data: DataConfig
    model: ModelConfig
    attention: AnyAttention
    objective: AnyObjective
    train: TrainConfig
    sample: SampleConfig
    evaluate: EvaluateConfig

    @model_validator(mode="after")
    def _sections_fit_together(self) -> TrialConfig:
        problems = []
        if self.data.resolution % self.model.patch_size:
            problems.append(
                f"model.patch_size must divide data.resolution, but "
                f"{self.data.resolution} / {self.model.patch_size} leaves a rest"
            )
        elif (problem := self._attention_problem()) is not None:
            problems.append(problem)
        if self.evaluate.inception_splits > self.evaluate.samples:
            problems.append("evaluate.inception_splits must not exceed evaluate.samples")
        if self.evaluate.probe_images > self.data.held_out:
            problems.append(
                f"evaluate.probe_images must not exceed data.held_out, but "
                f"{self.evaluate.probe_images} > {self.data.held_out}"
            )
        most = self.objective.most_sampler_steps()
        if most is not None and self.sample.steps > most:
            problems.append(
                f"sample.steps must not exceed objective.steps, but {self.sample.steps} > {most}"
            )
        flow = self.sample.sampler.startswith("flow_")
        if flow != (self.objective.name == "flow"):
            problems.append(
                f"sample.sampler {self.sample.sampler} does not fit objective.name "
                f"{self.objective.name}: flow_euler and flow_heun go with flow, "
                f"the others with ddpm"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _attention_problem(self) -> str | None:
        """Why the attention block cannot be built; asked of the block itself, without memory."""
        side = self.data.resolution // self.model.patch_size
        shape = AttentionShape(
            width=self.model.width,
            heads=self.model.heads,
            grid=(side, side),
            value_convolution=self.model.value_convolution,
            qk_norm=self.model.qk_norm,
        )
        try:
            with torch.device("meta"):
                build_attention(self.attention, shape)
        except UserError as error:
            return str(error)
        return None


class ClusterConfig(Section):
    """Where trials run. Never part of a trial's hash."""

    launcher: Literal["local"]
    workers: Annotated[int, Field(ge=1)] | Literal["auto"]
    threads_per_worker: Annotated[int, Field(ge=1)] | Literal["auto"]
