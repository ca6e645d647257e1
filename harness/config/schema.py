"""The typed, closed description of one trial. Values come from `experiments/`, never from here.

Defaults stand in `experiments/base.yaml` alone; only the fields of an attention variant or of an
objective have theirs beside the mathematics they belong to, and fields that came after trials had
been run have the value that is what those did.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from harness.config.discovery import extractors, offer_of, samplers
from harness.config.sections import (
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    SampleConfig,
    Section,
    TrainConfig,
    indivisible,
)
from harness.vocabulary.metrics import BY_KEY, Measurement
from models.attention import AnyAttention, build_attention
from models.attention.base import AttentionShape
from models.errors import UserError
from models.objectives import objective_config, objective_names
from models.objectives.base import ObjectiveConfig

if TYPE_CHECKING:
    AnyObjective = ObjectiveConfig
else:
    AnyObjective = Annotated[
        reduce(or_, [objective_config(name) for name in objective_names()]),
        Field(discriminator="name"),
    ]

FEWEST_VALIDATION_SAMPLES = 6
"""Coverage looks at five neighbours."""


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

    def problems(self) -> Iterator[str]:
        data, model, sample, evaluate = self.data, self.model, self.sample, self.evaluate
        what = "data.resolution" + (" / data.downsampling" if data.downsampling > 1 else "")
        indivisible_side = list(indivisible("model.patch_size", model.patch_size, what, data.side))
        yield from indivisible_side or self._attention_problems()
        if evaluate.inception_splits > evaluate.samples:
            yield "evaluate.inception_splits must not exceed evaluate.samples"
        yield from self._validation_problems()
        if evaluate.probe_images > data.held_out:
            yield (
                f"evaluate.probe_images must not exceed data.held_out, but "
                f"{evaluate.probe_images} > {data.held_out}"
            )
        if model.label_dropout == 0 and sample.guidance_scale != 1:
            yield (
                "model.label_dropout=0 never trains the network without labels, which "
                f"sample.guidance_scale={sample.guidance_scale:g} needs: set "
                "model.label_dropout=0.1, or sample.guidance_scale=1"
            )
        most = self.objective.most_sampler_steps()
        if most is not None and sample.steps > most:
            yield f"sample.steps must not exceed objective.steps, but {sample.steps} > {most}"
        yield from self._sampler_problems()

    def _sampler_problems(self) -> Iterator[str]:
        """Why the sampler cannot solve what the network is trained for, in so few steps."""
        sampler, objective = self.sample.sampler, self.objective.name
        offers = samplers()
        solved = offers[sampler].constants.get("OBJECTIVE", objective)
        if solved != objective:
            fitting = [
                it.name for it in offers.values() if it.constants.get("OBJECTIVE") == objective
            ]
            yield (
                f"sample.sampler {sampler} solves objective.name {solved}, not {objective}: take "
                f"one of {', '.join(fitting)}, or set objective.name={solved}"
            )
            return
        fewest = offers[sampler].constants.get("FEWEST_STEPS", {}).get(sampler, 1)
        if self.sample.steps < fewest:
            yield f"sample.steps must be {fewest} or more with sample.sampler {sampler}"

    def _validation_problems(self) -> Iterator[str]:
        """Why the validation of training does not fit what it is measured with."""
        fewest = max(FEWEST_VALIDATION_SAMPLES, self.evaluate.inception_splits)
        if 0 < self.train.validation_samples < fewest:
            yield (
                f"train.validation_samples must be 0 or at least {fewest}: neighbours and "
                f"evaluate.inception_splits need as many, but it is {self.train.validation_samples}"
            )
        if self.train.best_by is not None:
            yield from unmeasured("train.best_by", self.train.best_by, self.evaluate.extractor)
        elif self.sample.weights == "best":
            yield (
                "sample.weights=best needs a metric to be best by: set train.best_by, such as "
                "train.best_by=validation_loss"
            )

    def _attention_problems(self) -> Iterator[str]:
        """Why the attention block cannot be built; asked of the block itself, without memory."""
        side = self.data.side // self.model.patch_size
        shared = {
            field.name: getattr(self.model, field.name)
            for field in fields(AttentionShape)
            if field.name != "grid"
        }
        try:
            with torch.device("meta"):
                build_attention(self.attention, AttentionShape(grid=(side, side), **shared))
        except UserError as error:
            yield str(error)


def unmeasured(field: str, metric: str, extractor: str) -> list[str]:
    """Why the features of an extractor cannot give the metric that a field asks for."""
    offers = extractors()
    offer = offer_of(extractor, offers)
    spatial = metric in BY_KEY and BY_KEY[metric].measurement is Measurement.SPATIAL
    if not spatial or offer is None or offer.constants.get("SPATIAL"):
        return []
    fitting = [it.shown for it in offers.values() if it.constants.get("SPATIAL")]
    return [
        f"{field}={metric} needs spatial features, which evaluate.extractor={extractor} does not "
        f"have: take another metric, or evaluate.extractor={' or '.join(fitting)}"
    ]
