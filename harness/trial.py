"""One trial: train, sample, measure, write down. The stages in order, each resumable.

A stage that is done has left a file: `trained.json` beside `ema.safetensors`, `samples.npz`,
`result.json`. What is there is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.loggers.logger import DummyLogger

from harness.atomic_file import remove_leftovers, write_text
from harness.cluster.trial_lock import trial_lock
from harness.config.schema import TrialConfig
from harness.config.serialisation import flatten, to_yaml
from harness.data.datasets import load_data_set
from harness.data.image_set import DataSet
from harness.disk_space import full_disk_as_user_error
from harness.evaluation.attention_probe import NOISE_LEVELS
from harness.evaluation.cost import model_cost
from harness.evaluation.evaluate import evaluate_samples
from harness.evaluation.extractors import check_extractor, load_extractor
from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.peak_memory import measure_peak_memory
from harness.evaluation.quality import Quality
from harness.evaluation.reference import Reference
from harness.floor import measure_floor
from harness.meeting import Meeting, place_from_environment
from harness.probe import probe_metrics, probe_trial, write_probe
from harness.process_group import ALONE, ProcessGroup, current_group
from harness.progress import Progress, ProgressListener, ignore_progress
from harness.quality_metrics import quality_metrics
from harness.stop_request import StopRequest
from harness.tracking import names
from harness.tracking.journal import Journal, ending_of
from harness.tracking.lightning_logger import JournalLogger, MetricsListener
from harness.tracking.provenance import collect
from harness.tracking.publisher import Publisher
from harness.tracking.store import Store
from harness.training.best_weights import BEST, read_best
from harness.training.hardware import Precision, choose_device
from harness.training.skipped_steps import shown
from harness.training.train import (
    TrainingSummary,
    load_trained,
    resolve_precision,
    train,
)
from harness.trial_order import RESULT, TrialOrder, finished_result, precision_file
from harness.trial_ranks import run_on_ranks
from harness.trial_reference import extractor_files, measured_identity, real_features
from harness.trial_samples import save_grid, trial_samples
from harness.trial_status import recorded_status
from harness.validation_samples import ValidationSamples, chosen_by, validation_identity
from models.backbone import Backbone

_LARGE_FILES = ("samples", "ema", "best")
"""What a process that is killed while it writes must not leave behind at every try."""


def run_job(
    payload: Mapping[str, Any], report: ProgressListener, stop: StopRequest | None = None
) -> dict[str, Any]:
    """What a worker is called with: `{"job": "floor" or "trial", "order": a TrialOrder}`."""
    order = TrialOrder(**payload["order"])
    if payload["job"] == "floor":
        with full_disk_as_user_error(f"features in {order.references}"):
            return measure_floor(order, (stop or StopRequest()).between_batches(report))
    if order.processes > 1 and place_from_environment() is None:
        return run_on_ranks(order, report)
    return run_trial(order, report, stop)


def run_trial(
    order: TrialOrder,
    report: ProgressListener,
    stop: StopRequest | None = None,
    on_metrics: MetricsListener | None = None,
) -> dict[str, Any]:
    """Run one trial, or what is left of it.

    Where `stop` is given, it is looked at between steps and batches. `on_metrics` is told what
    training records.

    Returns:
        Its result, as in `result.json`.

    Raises:
        UserError: the loss stops being finite, data or hardware do not fit the configuration, or
            the disk is full.
        Preempted: a stop was requested; the next call goes on from there.
    """
    folder = Path(order.folder)
    # Not by `choose_device`, which would take memory of the first GPU in every process.
    cuda = order.config["train"]["device"] != "cpu" and torch.cuda.is_available()
    with Meeting(place_from_environment()) as meeting:
        if meeting.leads:
            return _lead(order, meeting, cuda, report, stop or StopRequest(), on_metrics)
        group = meeting.begin(cuda)
        result = group.broadcast(finished_result(folder))
        if result is None:
            _Trial(order, ignore_progress, stop or StopRequest(), None).follow()
        return result or {}


def _lead(
    order: TrialOrder,
    meeting: Meeting,
    cuda: bool,
    report: ProgressListener,
    stop: StopRequest,
    on_metrics: MetricsListener | None,
) -> dict[str, Any]:
    """What the leading process of a trial does, which is the only one where there are no others."""
    folder = Path(order.folder)

    def waiting(text: str) -> None:
        report(Progress("wait", 0, 1, text))

    disk = f"the trial {folder}"
    with full_disk_as_user_error(disk), trial_lock(folder, waiting):
        group = meeting.begin(cuda)
        # Another command may have finished it while this one waited.
        result = group.broadcast(finished_result(folder))
        if result is not None:
            return result
        with recorded_status(folder, report) as recorded, full_disk_as_user_error(disk):
            return _Trial(order, recorded, stop, on_metrics).run()


class _Trial:
    """The stages of one trial, its lock being held."""

    def __init__(
        self,
        order: TrialOrder,
        report: ProgressListener,
        stop: StopRequest,
        on_metrics: MetricsListener | None,
    ) -> None:
        self.order = order
        self.on_metrics = on_metrics
        self.stop = stop
        self.report = stop.between_batches(report)
        self.report_training = report
        self.folder = Path(order.folder)
        self.config = TrialConfig.model_validate(order.config)
        self.group = current_group()
        hardware = choose_device(self.config.train)
        self.device, self.gpu = hardware.device, hardware.gpu

    def run(self) -> dict[str, Any]:
        for stem in _LARGE_FILES:
            remove_leftovers(self.folder, stem)
        write_text(self.folder / names.ARTIFACT_CONFIG, to_yaml(self.config))
        journal = Journal(self.folder)
        journal.start(
            experiment=self.order.scale,
            run_name=f"{self.order.variant}/seed{self.config.seed}",
            tags=self._tags(),
            params=flatten(self.config),
            parent=Path(self.order.parent),
        )
        journal.artifact(Path(names.ARTIFACT_CONFIG))
        store = Store(self.order.store_uri, Path(self.order.root))
        publisher = Publisher(self.folder, store, _say)
        publisher.start()
        try:
            result = self._stages(journal)
        except BaseException as error:
            # Where not even this can be written, what went wrong must be told nevertheless.
            with suppress(OSError):
                journal.end(*ending_of(error))
            raise
        else:
            # The result comes last: a trial that has one is complete in the journal as well.
            journal.end("FINISHED", "finished")
            write_text(self.folder / RESULT, json.dumps(result, indent=2) + "\n")
            return result
        finally:
            publisher.close()
            journal.close()

    def follow(self) -> None:
        """Take part in what a process that does not lead takes part in."""
        self._stages(None)

    def _stages(self, journal: Journal | None) -> dict[str, Any]:
        """Without a journal, which the leading process has, only what is done together."""
        # Missing weights should not be found after hours of training.
        check_extractor(*extractor_files(self.config))
        data = load_data_set(self.config.data)
        with measure_peak_memory(self.device) as peak:
            logger = DummyLogger() if journal is None else self._logger(journal)
            precision = self.group.broadcast(self._precision(data) if self.group.leads else None)
            assert precision is not None
            trained = train(
                self.config,
                data,
                self.folder,
                self.device,
                precision,
                logger,
                self.report_training,
                self._validation_samples(data, journal),
                stop=self.stop,
            )
        network = load_trained(
            self.folder,
            self.config,
            data.train.shape,
            len(data.train.class_names),
            self.config.sample.weights,
        ).to(self.device)
        images, labels, speed = trial_samples(
            network,
            self.config,
            data,
            self.order,
            device=self.device,
            report=self.report,
            group=self.group,
        )
        grids: tuple[Path, ...] = ()
        if self.group.leads:
            columns = self.config.sample.grid_images
            grids = save_grid(self.folder, images, labels, data.train.class_names, columns)
        extractor = load_extractor(*extractor_files(self.config))
        quality = self._measure(images, data, extractor)
        if journal is None or quality is None:
            return {}
        metrics = {
            **quality_metrics(quality),
            **self._costs(network, data, trained, speed),
        }
        probed, probe_files = self._probe(network, data)
        metrics |= probed
        if peak.bytes is not None:
            metrics[names.PEAK_MEMORY] = float(peak.bytes)
        identity = self._identity(quality)
        tags = {
            names.TAG_PRECISION: trained.precision,
            names.TAG_EXTRACTOR: extractor.display,
            names.TAG_METRIC_IDENTITY: json.dumps(identity, sort_keys=True),
            names.TAG_PEAK_MEMORY_KIND: peak.kind,
            **self._validation_tags(identity, journal),
        }
        if trained.skipped_steps:
            tags[names.TAG_SKIPPED_STEPS] = shown(trained.skipped_steps)
        journal.metrics(metrics, step=trained.steps)
        journal.tags(tags)
        for artifact in (*grids, *probe_files):
            journal.artifact(artifact)
        return {
            "variant": self.order.variant,
            "seed": self.config.seed,
            "hash": self.order.hash,
            "metrics": metrics,
            "identity": identity,
            "training": asdict(trained),
            "tags": {**self._tags(), **tags},
        }

    def _logger(self, journal: Journal) -> JournalLogger:
        return JournalLogger(journal, self.on_metrics)

    def _precision(self, data: DataSet) -> Precision:
        decision = precision_file(self.config, Path(self.order.references), self.order.threads)
        return resolve_precision(self.config, data, self.device, decision)

    def _validation_samples(
        self, data: DataSet, journal: Journal | None
    ) -> ValidationSamples | None:
        """What training draws and measures on the way; None where that is switched off."""
        if self.config.train.validation_samples == 0:
            return None

        def record(grid: Path) -> None:
            if journal is not None:
                journal.artifact(grid, names.ARTIFACT_VALIDATION_SAMPLES)

        def load_measuring() -> tuple[FeatureExtractor, Reference]:
            extractor = load_extractor(*extractor_files(self.config))
            return extractor, self._reference(data, extractor, self.report_training)

        return ValidationSamples(
            self.config,
            data,
            self.folder,
            self.device,
            load_measuring,
            record,
            self.report_training,
        )

    def _validation_tags(self, identity: Mapping[str, Any], journal: Journal) -> dict[str, str]:
        """What validation samples were measured with, and which weights were best."""
        tags = {}
        if self.config.train.validation_samples:
            measured = validation_identity(identity, self.config)
            tags[names.TAG_VALIDATION_IDENTITY] = json.dumps(measured, sort_keys=True)
        best = read_best(self.folder)
        if best is not None:
            journal.artifact(Path(BEST))
            tags |= {
                names.TAG_BEST_BY: best.metric,
                names.TAG_BEST_STEP: str(best.step),
                names.TAG_BEST_VALUE: repr(best.value),
            }
        return tags

    def _measure(
        self, images: NDArray[np.uint8], data: DataSet, extractor: FeatureExtractor
    ) -> Quality | None:
        """The figures, from features that all processes extract; None where another one leads."""
        return evaluate_samples(
            images,
            self._reference(data, extractor, self.report, self.group),
            extractor,
            inception_splits=self.config.evaluate.inception_splits,
            batch_size=self.config.evaluate.batch_size,
            device=self.device,
            group=self.group,
            on_progress=self.report,
        )

    def _reference(
        self,
        data: DataSet,
        extractor: FeatureExtractor,
        report: ProgressListener,
        group: ProcessGroup = ALONE,
    ) -> Reference:
        return real_features(
            data.train.pictures,
            self.config.evaluate.reference_images,
            self.config,
            extractor,
            references=Path(self.order.references),
            device=self.device,
            report=report,
            group=group,
        )

    def _probe(self, network: Backbone, data: DataSet) -> tuple[dict[str, float], tuple[Path, ...]]:
        """The attention probe's metrics and files; none where it is switched off."""
        count = self.config.evaluate.probe_images
        rows = probe_trial(network, self.config, data, count, NOISE_LEVELS, self.report)
        if not rows:
            return {}, ()
        return probe_metrics(rows), write_probe(rows, self.folder, names.ARTIFACT_PROBE)

    def _costs(
        self,
        network: Backbone,
        data: DataSet,
        trained: TrainingSummary,
        sampling_speed: float | None,
    ) -> dict[str, float]:
        cost = model_cost(network, data.train.shape, len(data.train.class_names))
        figures = {
            names.VALIDATION_LOSS: trained.validation_loss,
            names.TRAIN_IMAGES_PER_SECOND: trained.images_per_second,
            names.SAMPLING_IMAGES_PER_SECOND: sampling_speed,
            names.PARAMETERS: cost.parameters,
            names.MACS: cost.macs,
            names.FLOPS: cost.flops,
        }
        return {name: float(value) for name, value in figures.items() if value is not None}

    def _identity(self, quality: Quality) -> dict[str, Any]:
        """All that the quality figures depend on besides the model."""
        sample = self.config.sample
        # Only where it is another: figures from before there was a choice are of the last weights.
        best = {"weights": chosen_by(self.config)} if sample.weights == "best" else {}
        return {
            **measured_identity(quality),
            **best,
            "objective": self.config.objective.name,
            "sampler": sample.sampler,
            "steps": sample.steps,
            "guidance_scale": sample.guidance_scale,
            "guidance_channels": sample.guidance_channels or "all",
            "labels": sample.labels,
        }

    def _tags(self) -> dict[str, str]:
        provenance = collect(Path(self.order.root), gpu=self.gpu, threads=self.order.threads)
        return {
            **provenance.tags(),
            names.TAG_KIND: names.KIND_TRIAL,
            names.TAG_SCALE: self.order.scale,
            names.TAG_VARIANT: self.order.variant,
            names.TAG_SEED: str(self.config.seed),
            names.TAG_CONFIG_HASH: self.order.hash,
            names.TAG_SIDE_BY_SIDE: str(self.order.side_by_side),
            names.TAG_PROCESSES: str(self.group.size),
            **self.order.tags,
        }


def _say(text: str) -> None:
    """Into the trial's log, which may lie on a full disk."""
    with suppress(OSError):
        print(text, flush=True)
