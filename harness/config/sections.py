"""The sections of a trial's configuration: closed, frozen, and clear about which fields can change
a result.

A field marked `without_effect` cannot change a result and stays out of the trial's hash; one marked
`added_later` stays out while it has its neutral value, so that older trials keep their hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from harness.config.discovery import data_sets, extractors, offer_of, offered_name, samplers
from harness.vocabulary.metrics import VALIDATION_LOSS, JudgedBy
from models.attention import variant_names
from models.attention.base import ValueConvolutionConfig
from models.attention.parts.products import SumPrecision
from models.backbone import BACKBONE_SIZES

if TYPE_CHECKING:
    VariantName = str
else:
    VariantName = Literal[variant_names()]

WITHOUT_EFFECT = "without_effect_on_the_result"
NEUTRAL = "value_that_leaves_the_hash_as_it_was"


def without_effect(default: Any = ..., **constraints: Any) -> Any:
    """A field that cannot change a result beyond rounding; without a default it must be given."""
    return Field(default, json_schema_extra={WITHOUT_EFFECT: True}, **constraints)


def added_later(neutral: Any, **constraints: Any) -> Any:
    """A field that came after trials had been run, with the value that is what they did."""
    return Field(neutral, json_schema_extra={NEUTRAL: neutral}, **constraints)


def is_without_effect(field: FieldInfo) -> bool:
    """Whether a field is marked as one that cannot change a result."""
    return isinstance(field.json_schema_extra, dict) and WITHOUT_EFFECT in field.json_schema_extra


def can_change_results(field: FieldInfo, value: Any) -> bool:
    """Whether a value belongs to the trial's hash: it has an effect, and is not the neutral one."""
    marks = field.json_schema_extra
    neutral = isinstance(marks, dict) and NEUTRAL in marks and marks[NEUTRAL] == value
    return not neutral and not is_without_effect(field)


MOST_IMAGES = 10_000_000
"""Samples or images of one kind, two hundred times the field's 50,000. A larger number is a slip of
the keyboard, and would be noticed only once the disk or the memory is full."""


class Section(BaseModel):
    """Frozen, with unknown keys, implicit conversions and NaN refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def problems(self) -> Iterable[str]:
        """Why values that each fit their field do not fit together, a line each, with the fields'
        dotted keys."""
        return ()

    @model_validator(mode="after")
    def _refuse_problems(self) -> Self:
        problems = list(self.problems())
        if problems:
            raise ValueError("\n".join(problems))
        return self


def indivisible(divisor: str, by: int, key: str, number: int) -> Iterator[str]:
    """The problem that a number, with its key, is no multiple of the divisor."""
    if number % by:
        yield f"{divisor} must divide {key}, but {number} / {by} leaves a rest"


class DataConfig(Section):
    """Which images, and how many of them are held out of training."""

    name: Annotated[str, offered_name(data_sets)]
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
    held_out: int = Field(
        ge=2, le=MOST_IMAGES, description="images kept for the validation loss and the floor"
    )
    horizontal_flip: bool
    workers: int = without_effect(ge=0, le=64, description="loader processes")

    @property
    def side(self) -> int:
        """Rows and columns of what the network sees."""
        return self.resolution // self.downsampling

    def problems(self) -> Iterator[str]:
        yield from indivisible(
            "data.downsampling", self.downsampling, "data.resolution", self.resolution
        )
        if self.latents is None and self.downsampling != 1:
            yield (
                f"data.downsampling is {self.downsampling}, but data.latents is null: name the "
                "folder of latents, or set data.downsampling=1 to train on pixels"
            )
        used = data_sets()[self.name].constants.get("FIELDS", ())
        for key in ("manifest", "latents"):
            if key not in used and getattr(self, key) is not None:
                yield f"data.{key} is of no use with data.name={self.name}: set it to null"


class EvaluateConfig(Section):
    """Which features the samples are measured with, and how many samples."""

    extractor: Annotated[str, offered_name(extractors)]
    extractor_weights: str | None = without_effect(
        None,
        description="file of the extractor's weights, whose hash stands beside every figure; null "
        "takes its own where it has some",
    )
    extractor_size: int | None = added_later(
        None,
        ge=16,
        le=2048,
        description="pixels a side that torch:MODEL sees; null takes the published choice (224 for "
        "DINOv2), or else timm's",
    )
    samples: int = Field(ge=2, le=MOST_IMAGES)
    reference_images: int | None = Field(
        ge=2,
        le=MOST_IMAGES,
        description="training images to compare with, a fixed random choice; null takes all",
    )
    inception_splits: int = Field(ge=1, description="splits of the Inception-style score")
    probe_images: int = Field(
        ge=0, description="held-out images for the attention probe; 0 switches it off"
    )
    batch_size: int = without_effect(ge=1)

    def problems(self) -> Iterator[str]:
        offer = offer_of(self.extractor, extractors())
        constants = {} if offer is None else offer.constants
        named = f"evaluate.extractor={self.extractor}"
        weights = constants.get("WEIGHTS", "optional")
        if weights == "required" and self.extractor_weights is None:
            yield f"{named} needs a file of weights: name it in evaluate.extractor_weights"
        if weights == "refused" and self.extractor_weights is not None:
            yield f"evaluate.extractor_weights is of no use with {named}: set it to null"
        if self.extractor_size is not None and not constants.get("SIZED"):
            yield (
                f"evaluate.extractor_size is of no use with {named}, which sees images of one "
                "size: set it to null"
            )


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
    sum_precision: SumPrecision = added_later(
        "float32",
        description="what linear attention's products round their factors to; sums are float32",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_named_size(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        # A misspelt size is one mistake; it must not be followed by missing depth, width and heads.
        named = BACKBONE_SIZES.get(str(values.get("size")), BACKBONE_SIZES["tiny"])
        return {"depth": named.depth, "width": named.width, "heads": named.heads, **values}

    def problems(self) -> Iterator[str]:
        yield from indivisible("model.heads", self.heads, "model.width", self.width)


Weights = Literal["last", "best"]
"""Which EMA weights of a training: after its last step, or with the best value of `best_by`."""


class SampleConfig(Section):
    """From the EMA weights to images."""

    sampler: Annotated[str, offered_name(samplers)]
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


Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(Section):
    """Optimisation. One step is one batch of the global batch size."""

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0, le=1)
    factor_learning_rate: float = added_later(
        1.0,
        ge=0,
        le=1000,
        description="of exponents and lambdas that an attention variant learns, as a multiple of "
        "learning_rate",
    )
    warmup_steps: int = Field(ge=0)
    betas: tuple[Beta, Beta] = Field(strict=False)
    weight_decay: float = Field(ge=0)
    gradient_clip: float = Field(ge=0, description="largest global norm; 0 switches clipping off")
    ema_decay: float = Field(ge=0, lt=1)
    ema_start: Literal["first_step", "initial"] = added_later(
        "first_step",
        description="weights that the average starts from: after the first step, or the initial "
        "ones, as DiT has it",
    )
    precision: Literal["auto", "32-true", "bf16-mixed"]
    validate_every: int = Field(ge=1, description="steps between validation losses")
    validation_samples: int = added_later(
        0,
        ge=0,
        le=MOST_IMAGES,
        description="samples drawn and measured during training; 0 draws none",
    )
    validation_samples_every: int | None = added_later(
        None, ge=1, description="steps between validation samples; null takes validate_every"
    )
    best_by: JudgedBy | None = added_later(
        None,
        description="metric of validation whose best value says which weights to keep besides the "
        "last ones; null keeps the last alone",
    )
    on_non_finite: Literal["stop", "skip"] = added_later(
        "stop",
        description="after a loss or gradient that is not finite: end with an error, or go back to "
        "the last checkpoint and leave that step's batch out",
    )
    most_skips: int = without_effect(
        10, ge=1, description="batches left out before a trial ends with an error after all"
    )
    device: Literal["auto", "cpu", "cuda"] = without_effect()
    strategy: Literal["ddp", "fsdp"] = without_effect(
        "ddp",
        description="of several processes that train together: each holds the whole network (ddp), "
        "or a part of its weights, gradients and averages (fsdp)",
    )
    accumulate: int = without_effect(
        1,
        ge=1,
        description="micro-batches that each process goes through in a step, one after the other; "
        "more take less memory",
    )
    activation_checkpointing: bool = without_effect(
        False,
        description="compute the insides of blocks again in the backward pass: less memory, more "
        "time",
    )
    compile: bool = without_effect(False, description="torch.compile of the network's blocks")
    checkpoint_every: int = without_effect(ge=1, description="steps between checkpoints")
    log_every: int = without_effect(ge=1, description="steps between logged metrics")

    def problems(self) -> Iterator[str]:
        yield from indivisible(
            "train.accumulate", self.accumulate, "train.batch_size", self.batch_size
        )
        if self.validation_samples == 0 and self.validation_samples_every is not None:
            yield (
                "train.validation_samples_every is of no use with train.validation_samples=0: set "
                "it to null"
            )
        if self.validation_samples == 0 and self.best_by not in (None, VALIDATION_LOSS):
            yield (
                f"train.best_by={self.best_by} is measured on samples, but "
                "train.validation_samples is 0: set it to a number, or take "
                "train.best_by=validation_loss"
            )

    @property
    def steps_between_samples(self) -> int:
        """Steps from one set of validation samples to the next."""
        return self.validation_samples_every or self.validate_every
