"""What a trial does: train, sample, measure, write down. The stages in order, each resumable.

A stage that is done has left a file: `trained.json` beside `ema.safetensors`, `samples.npz`,
`result.json`. What is there is not done again.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers.logger import DummyLogger

from harness.config.facts import shown_precision
from harness.config.schema import TrialConfig
from harness.config.serialisation import flatten, to_yaml
from harness.data.datasets import load_data_set
from harness.data.images import DataSet
from harness.evaluation.cost import measure_peak_memory
from harness.evaluation.extractors import check_extractor
from harness.evaluation.features import Extraction
from harness.evaluation.probe.outputs import probe_metrics, probe_trial, write_probe
from harness.evaluation.probe.probe import NOISE_LEVELS
from harness.evaluation.quality import evaluate_samples
from harness.evaluation.reference import Reference
from harness.machine.files import full_disk_as_user_error, remove_leftovers, write_json, write_text
from harness.machine.place import choose_device
from harness.processes.group import current_group
from harness.processes.progress import ProgressListener
from harness.processes.signals import StopRequest
from harness.tracking.journal import Journal, ending_of
from harness.tracking.lightning_logger import JournalLogger, MetricsListener
from harness.tracking.publisher import Publisher
from harness.tracking.store import Store
from harness.training.hardware import Precision, resolve_precision
from harness.training.skipped_steps import shown
from harness.training.train import Training, load_trained
from harness.training.validation import BEST, read_best
from harness.trial.identity import cost_metrics, figures_identity, spec_tags, validation_tags
from harness.trial.reference import extractor_files, load_extraction, real_features
from harness.trial.samples import ValidationSamples, save_grid, trial_samples
from harness.trial.spec import RESULT, TrialSpec, precision_file
from harness.vocabulary import names
from models.backbone import Backbone

_LARGE_FILES = ("samples", "ema", "best")
"""What a process that is killed while it writes must not leave behind at every try."""


class TrialStages:
    """The stages of one trial, its lock being held.

    Args:
        spec: what to run.
        report: told how far each stage is.
        stop: looked at between steps and batches.
        on_metrics: told what training records, on the process that leads.
    """

    def __init__(
        self,
        spec: TrialSpec,
        report: ProgressListener,
        stop: StopRequest,
        on_metrics: MetricsListener | None = None,
    ) -> None:
        self.spec = spec
        self.on_metrics = on_metrics
        self.stop = stop
        self.report = stop.between_batches(report)
        self.report_training = report
        self.folder = Path(spec.folder)
        self.config = TrialConfig.model_validate(spec.config)
        self.group = current_group()
        self.device = choose_device(self.config.train.device, "train.device")

    @cached_property
    def tags(self) -> dict[str, str]:
        """Of the run, with the state of the repository at its beginning."""
        gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None
        return spec_tags(self.spec, self.config, gpu, self.group.size)

    def run(self) -> dict[str, Any]:
        """What the process that leads does, with all that is written down.

        Returns:
            The result, as in `result.json`.

        Raises:
            UserError: the loss stops being finite, data or hardware do not fit the configuration,
                or the disk is full.
            Preempted: a stop was requested.
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
                result = self._stages(journal)
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
        """Take part in what a process that does not lead takes part in."""
        self._stages(None)

    def _stages(self, journal: Journal | None) -> dict[str, Any]:
        """Without a journal, which the leading process has, only what is done together."""
        # Missing weights should not be found after hours of training.
        check_extractor(*extractor_files(self.config))
        data = load_data_set(self.config.data)
        if self.config.train.validation_samples:
            # Before training, where the other processes would wait for the one that does it, and a
            # wait for another trial's features could not be left without losing steps.
            self._reference(data, self._extraction())
        with measure_peak_memory(self.device) as peak:
            logger = DummyLogger() if journal is None else JournalLogger(journal, self.on_metrics)
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
                self._validation_samples(data, journal),
                stop=self.stop,
            ).run()
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
            self.spec,
            device=self.device,
            report=self.report,
            group=self.group,
        )
        grids: tuple[Path, ...] = ()
        if self.group.leads:
            columns = self.config.sample.grid_images
            grids = save_grid(self.folder, images, labels, data.train.class_names, columns)
        extraction = self._extraction()
        quality = evaluate_samples(
            images,
            self._reference(data, extraction),
            extraction,
            inception_splits=self.config.evaluate.inception_splits,
        )
        if journal is None or quality is None:
            return {}
        metrics = {
            **quality.recorded(),
            **cost_metrics(network, data, trained, speed),
        }
        probed, probe_files = self._probe(network, data)
        metrics |= probed
        if peak.bytes is not None:
            metrics[names.PEAK_MEMORY] = float(peak.bytes)
        identity = figures_identity(quality, self.config)
        best = read_best(self.folder)
        _, rows, columns = data.train.pictures.picture_shape
        tags = {
            names.TAG_DATA: f"{data.title}, {rows}x{columns}",
            names.TAG_PRECISION: shown_precision(trained.precision, self.config),
            names.TAG_EXTRACTOR: extraction.extractor.display,
            names.TAG_METRIC_IDENTITY: json.dumps(identity, sort_keys=True),
            names.TAG_PEAK_MEMORY_KIND: peak.kind,
            **validation_tags(identity, self.config, best),
        }
        if trained.skipped_steps:
            tags[names.TAG_SKIPPED_STEPS] = shown(trained.skipped_steps)
        journal.metrics(metrics, step=trained.steps)
        journal.tags(tags)
        best_file = () if best is None else (Path(BEST),)
        for artifact in (*grids, *probe_files, *best_file):
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

    def _precision(self, data: DataSet) -> Precision:
        decision = precision_file(self.config, Path(self.spec.references), self.spec.threads)
        return resolve_precision(self.config, data, self.device, decision, self.stop)

    def _validation_samples(
        self, data: DataSet, journal: Journal | None
    ) -> ValidationSamples | None:
        """What training draws and measures on the way; None where that is switched off."""
        if self.config.train.validation_samples == 0:
            return None

        def record(grid: Path) -> None:
            if journal is not None:
                journal.artifact(grid, names.ARTIFACT_VALIDATION_SAMPLES)

        def load_measuring() -> tuple[Extraction, Reference]:
            extraction = load_extraction(self.config, self.device, self.report_training)
            return extraction, self._reference(data, extraction)

        return ValidationSamples(
            self.config,
            data,
            self.folder,
            self.device,
            load_measuring,
            record,
            self.report_training,
        )

    def _extraction(self) -> Extraction:
        """By all processes together."""
        return load_extraction(self.config, self.device, self.report, self.group)

    def _reference(self, data: DataSet, extraction: Extraction) -> Reference:
        count, references = self.config.evaluate.reference_images, Path(self.spec.references)
        return real_features(data.train.pictures, count, extraction, references)

    def _probe(self, network: Backbone, data: DataSet) -> tuple[dict[str, float], tuple[Path, ...]]:
        """The attention probe's metrics and files; none where it is switched off."""
        count = self.config.evaluate.probe_images
        rows = probe_trial(network, self.config, data, count, NOISE_LEVELS, self.report)
        if not rows:
            return {}, ()
        return probe_metrics(rows), write_probe(rows, self.folder, names.ARTIFACT_PROBE)


def _say(text: str) -> None:
    """Into the trial's log, which may lie on a full disk."""
    with suppress(OSError):
        print(text, flush=True)
