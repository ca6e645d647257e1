"""Samples of a trial: those that it is judged by, and the few that are measured while it trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from harness.config.schema import TrialConfig
from harness.data.datasets import Decoder, load_decoder
from harness.evaluation.cost import images_per_second
from harness.evaluation.features import Extraction, extract_features
from harness.evaluation.quality import measure_features
from harness.evaluation.reference import Reference, ReferenceStatistics
from harness.machine.files import atomic_path, read_json, write_json
from harness.processes.group import ProcessGroup, current_group
from harness.processes.progress import Progress, ProgressListener, warn
from harness.sampling.files import (
    FileSink,
    class_grid,
    load_samples,
    save_grid_png,
    save_samples,
    shown_classes,
)
from harness.sampling.sample import NonFiniteSamplesError, SampleSpec, draw_samples
from harness.training.validation import ValidationFigures
from harness.trial.spec import TrialSpec
from harness.vocabulary import names
from harness.vocabulary.metrics import BY_KEY, MetricKey
from harness.vocabulary.names import SAMPLES
from models.backbone import Backbone
from models.errors import UserError, one_line
from models.randomness import derive_seed

_COST = "sampled.json"


@dataclass(frozen=True)
class SamplingCost:
    """What the samples of a trial cost."""

    images_per_second: float | None
    seconds: float
    network_evaluations_per_image: int


class TrialSamples(NamedTuple):
    """The samples that a trial is judged by."""

    images: NDArray[np.uint8]
    """(N, H, W, C)."""
    labels: NDArray[np.int64]
    """(N,)."""
    images_per_second: float | None
    """While they were drawn."""


def trial_samples(
    network: Backbone,
    config: TrialConfig,
    spec: TrialSpec,
    report: ProgressListener,
    group: ProcessGroup,
) -> TrialSamples:
    """The samples of a trial, drawn now or before, by all processes of a group, with a network that
    has its trained weights; the leading one writes."""
    folder = Path(spec.folder)
    path, cost = folder / SAMPLES, folder / _COST
    # Others than the leading one do not even look: NFS would remember that there was no file.
    drawn = group.broadcast(_drawn_before(path, cost, report) if group.leads else None)
    if drawn is None:
        sink = FileSink(folder, config.evaluate.samples, spec.hash) if group.leads else None
        device = next(network.parameters()).device
        samples = draw_samples(
            network,
            SampleSpec.of_trial(config, network, config.evaluate.samples, config.seed),
            device,
            to_pixels=load_decoder(config.data, device),
            sink=sink,
            group=group,
            on_progress=report,
        )
        if sink is not None:
            save_samples(path, samples.images, samples.labels)
            drawn = SamplingCost(
                images_per_second(samples.batches, warmup=1),
                samples.seconds,
                samples.network_evaluations,
            )
            write_json(cost, drawn, indent=2)
            sink.remove()
        drawn = group.broadcast(drawn)
    assert drawn is not None
    return TrialSamples(*load_samples(path), drawn.images_per_second)


def _drawn_before(samples: Path, cost: Path, report: ProgressListener) -> SamplingCost | None:
    """What the samples of a trial cost; None where they are still to be drawn, or are damaged."""
    if not (samples.exists() and cost.exists()):
        return None
    try:
        load_samples(samples)
        return read_json(cost, SamplingCost)
    except (OSError, UserError) as damage:
        warn(f"{samples}: the samples are drawn again: {one_line(damage)}", report)
        return None


def save_grid(
    folder: Path, samples: TrialSamples, class_names: tuple[str, ...], columns: int
) -> tuple[Path, ...]:
    """Write some samples of some classes, as a picture and as arrays.

    Returns:
        The two files, relative to the folder.
    """
    shown = shown_classes(len(class_names))
    grid = class_grid(samples.images, samples.labels, shown, columns)
    save_grid_png(folder / names.ARTIFACT_GRID, grid)
    with atomic_path(folder / names.ARTIFACT_GRID_IMAGES) as temporary:
        chosen = np.array([class_names[label] for label in shown])
        np.savez_compressed(temporary, images=grid, class_names=chosen)
    return Path(names.ARTIFACT_GRID), Path(names.ARTIFACT_GRID_IMAGES)


NOISE_SEED = derive_seed("validation-samples")
"""Far from the seeds that trials may have, so that no trial's final samples share this noise."""


@dataclass
class ValidationSamples:
    """Draws and measures the samples of one step, and keeps a grid of them.

    Starting noise and labels are the same at every step, in every variant and for every seed, so
    that differences between two figures are differences between two networks.
    """

    config: TrialConfig
    """Of the trial, with `train.validation_samples`."""
    folder: Path
    """Of the trial; gets `validation_samples/step-00000050.png` and so on."""
    device: torch.device
    """Where the network is."""
    load_measuring: Callable[[], tuple[Extraction, Reference]]
    """Gives the extraction and the reference; called before the first measurement."""
    on_grid: Callable[[Path, str], object]
    """Told of each grid that was written, and where it goes within the run's artifacts."""
    on_progress: ProgressListener
    """Told how far a validation is, as a note on the training."""

    def __call__(self, network: Backbone, step: int) -> ValidationFigures:
        """Draw and measure. Of several processes the leading one does it, and all get its figures.

        Samples with pixels that are not finite have figures that are NaN, and training goes on.

        Raises:
            UserError: the metric that the best weights are chosen by cannot be measured.
        """
        group = current_group()
        figures = group.broadcast(self._validate(network, step) if group.leads else None)
        assert figures is not None
        return figures

    def _validate(self, network: Backbone, step: int) -> ValidationFigures:
        count = self.config.train.validation_samples

        def listen(progress: Progress) -> None:
            note = f"validation: {progress.stage} {progress.done} of {progress.total}"
            self.on_progress(Progress("train", step, self.config.train.steps, note))

        try:
            samples = draw_samples(
                network,
                SampleSpec.of_trial(self.config, network, count, NOISE_SEED),
                self.device,
                to_pixels=self._to_pixels,
                on_progress=listen,
            )
        except NonFiniteSamplesError:
            return self._figures({"fd": math.nan, "kd": math.nan})
        self._save_grid(samples.images, samples.labels, step)
        extraction, reference = self._measuring
        quality = measure_features(
            extract_features(samples.images, replace(extraction, on_progress=listen)),
            samples.images.shape[1:3],
            reference,
            extraction.extractor,
            inception_splits=self.config.evaluate.inception_splits,
        )
        figures, wanted = quality.values(), self.config.train.best_by
        if wanted in BY_KEY and wanted not in figures:
            why = quality.left_out[BY_KEY[wanted].measurement]
            raise UserError(f"train.best_by={wanted} cannot be measured: {why}")
        return self._figures(figures)

    def _figures(self, by_metric: Mapping[MetricKey, float]) -> ValidationFigures:
        extractor, count = self._measuring[0].extractor.name, self.config.train.validation_samples
        logged = {
            names.on_validation_samples(BY_KEY[metric].recorded(extractor), count): value
            for metric, value in by_metric.items()
        }
        return ValidationFigures(logged, by_metric)

    def _save_grid(self, images: NDArray[np.uint8], labels: NDArray[np.int64], step: int) -> None:
        """A row a class, or a class of a spread choice; as many columns as the grid of the final
        samples has, or as the samples fill."""
        present = np.unique(labels)
        shown = present[list(shown_classes(len(present)))].tolist()
        columns = min(
            self.config.sample.grid_images, max(int((labels == label).sum()) for label in shown)
        )
        path = self.folder / names.ARTIFACT_VALIDATION_SAMPLES / f"step-{step:08d}.png"
        save_grid_png(path, class_grid(images, labels, shown, columns))
        self.on_grid(path, names.ARTIFACT_VALIDATION_SAMPLES)

    @cached_property
    def _measuring(self) -> tuple[Extraction, ReferenceStatistics]:
        extraction, reference = self.load_measuring()
        return extraction, reference.statistics()

    @cached_property
    def _to_pixels(self) -> Decoder:
        return load_decoder(self.config.data, self.device)


def validation_identity(identity: Mapping[str, Any], config: TrialConfig) -> dict[str, Any]:
    """What the figures of validation samples depend on, from the identity of the final samples'."""
    measured = {field: value for field, value in identity.items() if field != "weights"}
    return {**measured, "samples": config.train.validation_samples, "noise": "of validation"}
