"""How the network is trained, and what is looked at on the way."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from harness.config.sections.section import Section, added_later, without_effect

SampleMetric = Literal["fd", "sfd", "kd", "is", "precision", "recall", "density", "coverage"]
"""What validation samples are measured by; on Inception features `fd` is FID, and so on."""
BestBy = Literal["validation_loss", SampleMetric]


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
    betas: tuple[float, float] = Field(strict=False)
    weight_decay: float = Field(ge=0)
    gradient_clip: float = Field(ge=0, description="largest global norm; 0 switches clipping off")
    ema_decay: float = Field(ge=0, lt=1)
    precision: Literal["auto", "32-true", "bf16-mixed"]
    validate_every: int = Field(ge=1, description="steps between validation losses")
    validation_samples: int = added_later(
        0, ge=0, description="samples drawn and measured during training; 0 draws none"
    )
    validation_samples_every: int | None = added_later(
        None, ge=1, description="steps between validation samples; null takes validate_every"
    )
    best_by: BestBy | None = added_later(
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

    @field_validator("betas")
    @classmethod
    def _betas_in_unit_interval(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("both betas must lie in [0, 1)")
        return betas

    @model_validator(mode="after")
    def _micro_batches_are_equal(self) -> TrainConfig:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"train.accumulate must divide train.batch_size, but {self.batch_size} / "
                f"{self.accumulate} leaves a rest"
            )
        return self

    @model_validator(mode="after")
    def _best_can_be_told(self) -> TrainConfig:
        problems = []
        if self.validation_samples == 0 and self.validation_samples_every is not None:
            problems.append(
                "train.validation_samples_every is of no use with train.validation_samples=0: set "
                "it to null"
            )
        if self.validation_samples == 0 and self.best_by not in (None, "validation_loss"):
            problems.append(
                f"train.best_by={self.best_by} is measured on samples, but "
                "train.validation_samples is 0: set it to a number, or take "
                "train.best_by=validation_loss"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def steps_between_samples(self) -> int:
        """Steps from one set of validation samples to the next."""
        return self.validation_samples_every or self.validate_every
