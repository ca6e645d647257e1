"""The sampling stage of a trial, resumable, and the grid that shows what came of it.

Validation samples: the few images that are drawn and measured again and again while training.

Starting noise and labels are the same at every step, in every variant and for every seed, so that
differences between two figures are differences between two networks.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.config.schema import TrialConfig
from harness.data.datasets import Decoder, load_decoder
from harness.data.images import DataSet
from harness.evaluation.cost import images_per_second
from harness.evaluation.features import Extraction, extract_features
from harness.evaluation.quality import measure_features
from harness.evaluation.reference import Reference, ReferenceStatistics
from harness.machine.files import atomic_path, read_json, write_json
from harness.processes.group import ProcessGroup, current_group
from harness.processes.progress import Progress, ProgressListener
from harness.sampling.grid import class_grid, save_grid_png, shown_classes
from harness.sampling.sample import NonFiniteSamplesError, SampleSpec, draw_samples
from harness.sampling.sinks import FileSink, load_samples, save_samples
from harness.training.validation import ValidationFigures
from harness.trial.spec import TrialSpec
from harness.vocabulary import names
from harness.vocabulary.metrics import BY_KEY, MetricKey
from harness.vocabulary.names import SAMPLES
from models.backbone import Backbone
from models.errors import UserError, one_line
from models.randomness import derive_seed

_COST = "sampled.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamplingCost:
    """What the samples of a trial cost."""

    images_per_second: float | None
    seconds: float
    network_evaluations_per_image: int


def trial_samples(
    network: Backbone,
    config: TrialConfig,
    data: DataSet,
    spec: TrialSpec,
    *,
    device: torch.device,
    report: ProgressListener,
    group: ProcessGroup,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], float | None]:
    """The samples of a trial, drawn now or before, by all processes of a group.

    Args:
        network: with trained weights, on `device`.
        config: of the trial.
        data: what it was trained on.
        spec: says where the trial lives.
        device: where to draw.
        report: told after each batch.
        group: of processes that call this together; the leading one writes.

    Returns:
        Images (N, H, W, C), labels (N,), and images a second while they were drawn.
    """
    folder = Path(spec.folder)
    path, cost = folder / SAMPLES, folder / _COST
    # Others than the leading one do not even look: NFS would remember that there was no file.
    drawn = group.broadcast(_drawn_before(path, cost) if group.leads else None)
    if drawn is None:
        sink = FileSink(folder, config.evaluate.samples, spec.hash) if group.leads else None
        samples = draw_samples(
            network,
            SampleSpec(
                config.sample,
                config.objective,
                shape=data.train.shape,
                num_classes=len(data.train.class_names),
                count=config.evaluate.samples,
                seed=config.seed,
            ),
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
    return *load_samples(path), drawn.images_per_second


def _drawn_before(samples: Path, cost: Path) -> SamplingCost | None:
    """What the samples of a trial cost; None where they are still to be drawn, or are damaged."""
    if not (samples.exists() and cost.exists()):
        return None
    try:
        load_samples(samples)
        return read_json(cost, SamplingCost)
    except (OSError, UserError) as damage:
        _log.warning("%s: the samples are drawn again: %s", samples, one_line(damage))
        return None


def save_grid(
    folder: Path,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    class_names: tuple[str, ...],
    columns: int,
) -> tuple[Path, Path]:
    """Write some samples of some classes, as a picture and as arrays.

    Returns:
        The two files, relative to the folder.
    """
    shown = shown_classes(len(class_names))
    grid = class_grid(images, labels, shown, columns)
    save_grid_png(folder / names.ARTIFACT_GRID, grid)
    with atomic_path(folder / names.ARTIFACT_GRID_IMAGES) as temporary:
        np.savez_compressed(
            temporary,
            images=grid,
            class_names=np.array([class_names[label] for label in shown]),
        )
    return Path(names.ARTIFACT_GRID), Path(names.ARTIFACT_GRID_IMAGES)


NOISE_SEED = derive_seed("validation-samples")
"""Far from the seeds that trials may have, so that no trial's final samples share this noise."""


class ValidationSamples:
    """Draws and measures the samples of one step, and keeps a grid of them.

    Args:
        config: of the trial, with `train.validation_samples`.
        data: that it trains on.
        folder: of the trial; gets `validation_samples/step-00000050.png` and so on.
        device: where the network is.
        load_measuring: gives the extraction and the reference; called before the first measurement.
        on_grid: told of each grid that was written.
        on_progress: told how far a validation is, as a note on the training.
    """

    def __init__(
        self,
        config: TrialConfig,
        data: DataSet,
        folder: Path,
        device: torch.device,
        load_measuring: Callable[[], tuple[Extraction, Reference]],
        on_grid: Callable[[Path], None],
        on_progress: ProgressListener,
    ) -> None:
        self.config = config
        self.data = data
        self.folder = folder
        self.device = device
        self.load_measuring = load_measuring
        self.on_grid = on_grid
        self.on_progress = on_progress

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
        def listen(progress: Progress) -> None:
            note = f"validation: {progress.stage} {progress.done} of {progress.total}"
            self.on_progress(Progress("train", step, self.config.train.steps, note))

        try:
            samples = draw_samples(
                network,
                SampleSpec(
                    self.config.sample,
                    self.config.objective,
                    shape=self.data.train.shape,
                    num_classes=len(self.data.train.class_names),
                    count=self.config.train.validation_samples,
                    seed=NOISE_SEED,
                ),
                self.device,
                to_pixels=self._to_pixels,
                on_progress=listen,
            )
        except NonFiniteSamplesError:
            return self._figures({"fd": math.nan, "kd": math.nan})
        self._save_grid(samples.images, samples.labels, step)
        return self._figures(self._measure(samples.images, listen))

    def _measure(
        self, images: NDArray[np.uint8], on_progress: ProgressListener
    ) -> dict[MetricKey, float]:
        extraction, reference = self._measuring
        quality = measure_features(
            extract_features(images, replace(extraction, on_progress=on_progress)),
            images.shape[1:3],
            reference,
            extraction.extractor,
            inception_splits=self.config.evaluate.inception_splits,
        )
        figures = quality.values()
        wanted = self.config.train.best_by
        if wanted in BY_KEY and wanted not in figures:
            why = quality.left_out[BY_KEY[wanted].measurement]
            raise UserError(f"train.best_by={wanted} cannot be measured: {why}")
        return figures

    def _figures(self, by_metric: Mapping[MetricKey, float]) -> ValidationFigures:
        extractor = self._measuring[0].extractor
        count = self.config.train.validation_samples
        logged = {
            names.on_validation_samples(BY_KEY[metric].recorded(extractor.name), count): value
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
        self.on_grid(path)

    @cached_property
    def _measuring(self) -> tuple[Extraction, ReferenceStatistics]:
        extraction, reference = self.load_measuring()
        return extraction, reference.statistics()

    @cached_property
    def _to_pixels(self) -> Decoder:
        return load_decoder(self.config.data, self.device)


def validation_identity(identity: Mapping[str, Any], config: TrialConfig) -> dict[str, Any]:
    """What the figures of validation samples depend on.

    Args:
        identity: of the figures of the trial's final samples.
        config: of the trial.
    """
    measured = {field: value for field, value in identity.items() if field != "weights"}
    return {**measured, "samples": config.train.validation_samples, "noise": "of validation"}
