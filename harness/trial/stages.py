"""What a trial does: train, sample, measure, write down. The stages in order, each resumable.

A stage that is done has left a file: `trained.json` beside `ema.safetensors`, `samples.npz`,
`result.json`. What is there is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers.logger import DummyLogger, Logger

from harness.config.schema import TrialConfig
from harness.config.serialisation import flatten, sampling_facts, shown_precision, to_yaml
from harness.data.datasets import load_data_set
from harness.data.images import DataSet
from harness.evaluation.cost import model_cost, training_step_bytes
from harness.evaluation.extractors import check_extractor
from harness.evaluation.features import Extraction
from harness.evaluation.probe import NOISE_LEVELS, probe_metrics, probe_trial, write_probe
from harness.evaluation.quality import Quality, evaluate_samples
from harness.evaluation.reference import Reference
from harness.machine.files import full_disk_as_user_error, remove_leftovers, write_json, write_text
from harness.machine.place import choose_device
from harness.processes.group import current_group
from harness.processes.progress import ProgressListener
from harness.processes.signals import StopRequest
from harness.tracking.journal import Journal, ending_of
from harness.tracking.lightning_logger import JournalLogger, MetricsListener
from harness.tracking.provenance import provenance_tags
from harness.tracking.publisher import Publisher
from harness.tracking.store import Store
from harness.training.build import build_module
from harness.training.hardware import Precision, resolve_precision
from harness.training.skipped_steps import shown
from harness.training.train import Training, TrainingSummary, load_trained
from harness.training.validation import BEST, read_best
from harness.trial.reference import load_extraction, measured_identity, real_features
from harness.trial.samples import (
    TrialSamples,
    ValidationSamples,
    save_grid,
    trial_samples,
    validation_identity,
)
from harness.trial.spec import RESULT, TrialSpec, extractor_files, precision_file
from harness.vocabulary import names
from models.backbone import Backbone, Block

_LARGE_FILES = ("samples", "ema", "best")
"""What a process that is killed while it writes must not leave behind at every try."""


@dataclass(frozen=True)
class _Measured:
    """What all processes of a trial did together."""

    data: DataSet
    trained: TrainingSummary
    network: Backbone
    samples: TrialSamples
    extractor: str
    quality: Quality | None
    """None on a process that another one leads."""


class TrialStages:
    """The stages of one trial, its lock being held; stops between steps and batches."""

    def __init__(self, spec: TrialSpec, report: ProgressListener, stop: StopRequest) -> None:
        self.spec = spec
        self.stop = stop
        self.report = stop.between_batches(report)
        self.report_training = report
        self.folder = Path(spec.folder)
        self.config = TrialConfig.model_validate(spec.config)
        self.group = current_group()
        self.device = choose_device(self.config.train.device, "train.device")

    def lead(self, on_metrics: MetricsListener | None) -> dict[str, Any]:
        """What the process that leads does: its part of the stages, and all that is written down.

        Returns:
            The result, as in `result.json`.

        Raises:
            UserError, Preempted: as `run_trial`.
        """
        for stem in _LARGE_FILES:
            remove_leftovers(self.folder, stem)
        write_text(self.folder / names.ARTIFACT_CONFIG, to_yaml(self.config))
        journal = Journal(self.folder)
        journal.start(
            experiment=self.spec.scale,
            run_name=f"{self.spec.variant}/seed{self.config.seed}",
            tags=self.tags,
            params=flatten(self.config),
            parent=Path(self.spec.parent),
        )
        journal.artifact(Path(names.ARTIFACT_CONFIG))
        store = Store(self.spec.store_uri, Path(self.spec.root))
        publisher = Publisher(self.folder, store, _say)
        publisher.start()
        try:
            # Here already, so that the run in MLflow ends with these words as well.
            with full_disk_as_user_error(f"the trial {self.folder}"):
                logger = JournalLogger(journal, on_metrics)
                result = self._record(self._measured(logger, journal.artifact), journal)
        except BaseException as error:
            # Where not even this can be written, what went wrong must be told nevertheless.
            with suppress(OSError):
                journal.end(*ending_of(error))
            raise
        else:
            # The result comes last: a trial that has one is complete in the journal as well.
            journal.end("FINISHED", "finished")
            write_json(self.folder / RESULT, result, indent=2)
            return result
        finally:
            publisher.close()
            journal.close()

    def follow(self) -> None:
        """What a process does that another one leads: its part of the stages, and no writing."""
        self._measured(DummyLogger(), lambda *_: None)

    @cached_property
    def tags(self) -> dict[str, str]:
        """Of the run from its beginning on: where it comes from, and what it is a part of."""
        spec = self.spec
        gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None
        return {
            **provenance_tags(Path(spec.root), gpu=gpu, threads=spec.threads),
            names.TAG_KIND: names.KIND_TRIAL,
            names.TAG_SCALE: spec.scale,
            names.TAG_VARIANT: spec.variant,
            names.TAG_SEED: str(self.config.seed),
            names.TAG_CONFIG_HASH: spec.hash,
            names.TAG_SIDE_BY_SIDE: str(spec.side_by_side),
            names.TAG_PROCESSES: str(self.group.size),
            **spec.tags,
        }

    def _measured(self, logger: Logger, on_grid: Callable[[Path, str], object]) -> _Measured:
        """Train, sample and measure, all processes together.

        The leading one tells `on_grid` of each grid of validation samples, and of where it goes
        within the run's artifacts.
        """
        # Missing weights should not be found after hours of training.
        check_extractor(*extractor_files(self.config))
        data = load_data_set(self.config.data)
        measure = self._validation_samples(data, on_grid)
        if measure is not None:
            # Before training, where the other processes would wait for the one that does it, and a
            # wait for another trial's features could not be left without losing steps.
            self._reference(data, self._extraction())
        precision = self.group.broadcast(self._precision(data) if self.group.leads else None)
        assert precision is not None
        trained = Training(
            self.config,
            data,
            self.folder,
            self.device,
            precision,
            logger,
            self.report_training,
            measure,
            self.stop,
        ).run()
        network = load_trained(self.folder, self.config, self.config.sample.weights)
        network = network.to(self.device)
        samples = trial_samples(network, self.config, self.spec, self.report, self.group)
        extraction = self._extraction()
        quality = evaluate_samples(
            samples.images,
            self._reference(data, extraction),
            extraction,
            inception_splits=self.config.evaluate.inception_splits,
        )
        shown_extractor = extraction.extractor.display
        return _Measured(data, trained, network, samples, shown_extractor, quality)

    def _record(self, measured: _Measured, journal: Journal) -> dict[str, Any]:
        """Write the figures and files of the leading process to the journal; the result."""
        data, trained, quality = measured.data, measured.trained, measured.quality
        assert quality is not None
        classes, columns = data.train.class_names, self.config.sample.grid_images
        files = save_grid(self.folder, measured.samples, classes, columns)
        memory = {names.TRAINING_MEMORY: self._training_memory(measured)}
        metrics = {**quality.recorded(), **_cost_metrics(measured), **memory}
        count = self.config.evaluate.probe_images
        rows = probe_trial(measured.network, self.config, data, count, NOISE_LEVELS, self.report)
        if rows:
            metrics |= probe_metrics(rows)
            files += write_probe(rows, self.folder, names.ARTIFACT_PROBE)
        identity = {**measured_identity(quality), **sampling_facts(self.config)}
        _, height, width = data.train.pictures.shape
        tags = {
            names.TAG_DATA: f"{data.title}, {height}x{width}",
            names.TAG_PRECISION: shown_precision(trained.precision, self.config),
            names.TAG_EXTRACTOR: measured.extractor,
            names.TAG_METRIC_IDENTITY: json.dumps(identity, sort_keys=True),
        }
        if self.config.train.validation_samples:
            of_validation = json.dumps(validation_identity(identity, self.config), sort_keys=True)
            tags[names.TAG_VALIDATION_IDENTITY] = of_validation
        if (best := read_best(self.folder)) is not None:
            tags[names.TAG_BEST_BY] = best.metric
            tags[names.TAG_BEST_STEP] = str(best.step)
            tags[names.TAG_BEST_VALUE] = repr(best.value)
            files += (Path(BEST),)
        if trained.skipped_steps:
            tags[names.TAG_SKIPPED_STEPS] = shown(trained.skipped_steps)
        journal.metrics(metrics, step=trained.steps)
        journal.tags(tags)
        for artifact in files:
            journal.artifact(artifact)
        return {
            "variant": self.spec.variant,
            "seed": self.config.seed,
            "hash": self.spec.hash,
            "metrics": metrics,
            "identity": identity,
            "training": asdict(trained),
            "tags": {**self.tags, **tags},
        }

    def _training_memory(self, measured: _Measured) -> float:
        """Bytes, of one process's micro-batch."""
        train_set, settings = measured.data.train, self.config.train
        module = build_module(self.config, train_set.shape, len(train_set.class_names))
        images = settings.batch_size // (self.group.size * settings.accumulate)
        half = measured.trained.precision == "bf16-mixed"
        return float(training_step_bytes(module, images, half=half))

    def _precision(self, data: DataSet) -> Precision:
        decision = precision_file(self.config, Path(self.spec.references), self.spec.threads)
        return resolve_precision(self.config, data, self.device, decision, self.stop)

    def _validation_samples(
        self, data: DataSet, on_grid: Callable[[Path, str], object]
    ) -> ValidationSamples | None:
        """What training draws and measures on the way; None where that is switched off."""
        if self.config.train.validation_samples == 0:
            return None

        def load_measuring() -> tuple[Extraction, Reference]:
            extraction = load_extraction(self.config, self.device, self.report_training)
            return extraction, self._reference(data, extraction)

        return ValidationSamples(
            self.config, self.folder, self.device, load_measuring, on_grid, self.report_training
        )

    def _extraction(self) -> Extraction:
        """By all processes together."""
        return load_extraction(self.config, self.device, self.report, self.group)

    def _reference(self, data: DataSet, extraction: Extraction) -> Reference:
        count, references = self.config.evaluate.reference_images, Path(self.spec.references)
        return real_features(data.train.pictures, count, extraction, references)


def _cost_metrics(measured: _Measured) -> dict[str, float]:
    """Size, operations, the attention's heads and speeds."""
    first = measured.network.blocks[0]
    assert isinstance(first, Block)
    attention, train_set = first.attention, measured.data.train
    cost = model_cost(measured.network, train_set.shape, len(train_set.class_names))
    figures = {
        names.VALIDATION_LOSS: measured.trained.validation_loss,
        names.TRAIN_IMAGES_PER_SECOND: measured.trained.images_per_second,
        names.SAMPLING_IMAGES_PER_SECOND: measured.samples.images_per_second,
        names.PARAMETERS: cost.parameters,
        names.MACS: cost.macs,
        names.FLOPS: cost.flops,
        names.HEADS: attention.heads,
        names.HEAD_WIDTH: attention.width // attention.heads,
        names.QKV_BIAS: attention.qkv.bias is not None,
    }
    return {name: float(value) for name, value in figures.items() if value is not None}


def _say(text: str) -> None:
    """Into the trial's log, which may lie on a full disk."""
    with suppress(OSError):
        print(text, flush=True)
