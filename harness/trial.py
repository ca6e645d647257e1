"""One trial: train, sample, measure, write down. The stages in order, each resumable.

A stage that is done has left a file: `trained.json` beside `ema.safetensors`, `samples.npz`,
`result.json`. What is there is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.atomic_file import atomic_path, write_text
from harness.cluster.trial_lock import trial_lock
from harness.config.schema import TrialConfig
from harness.config.serialisation import flatten, to_yaml
from harness.data.datasets import load_data_set
from harness.data.decoder import load_decoder
from harness.data.image_set import DataSet, Pictures
from harness.evaluation.attention_probe import NOISE_LEVELS
from harness.evaluation.cost import model_cost
from harness.evaluation.evaluate import evaluate_samples, real_against_real
from harness.evaluation.extractors import check_extractor, load_extractor
from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.peak_memory import measure_peak_memory
from harness.evaluation.quality import Quality
from harness.evaluation.reference import PictureRows, RealImages, Reference, load_reference
from harness.evaluation.throughput import images_per_second
from harness.probe import probe_metrics, probe_trial, write_probe
from harness.progress import Progress, ProgressListener
from harness.quality_metrics import quality_metrics
from harness.sampling.grid import class_grid, save_grid_png, shown_classes
from harness.sampling.sample import draw_samples
from harness.sampling.sample_sink import FileSink
from harness.sampling.samples_file import load_samples, save_samples
from harness.tracking import names
from harness.tracking.journal import Journal, ending_of
from harness.tracking.lightning_logger import JournalLogger
from harness.tracking.provenance import collect
from harness.tracking.publisher import Publisher
from harness.tracking.store import Store
from harness.training.hardware import choose_device
from harness.training.train import (
    TrainingSummary,
    load_trained,
    resolve_precision,
    train,
)
from harness.trial_order import RESULT, TrialOrder, finished_result, floor_file, precision_file
from models.backbone import Backbone
from models.randomness import generator

SAMPLES = "samples.npz"
_SAMPLING_COST = "sampled.json"


def run_job(payload: Mapping[str, Any], report: ProgressListener) -> dict[str, Any]:
    """What a worker is called with: `{"job": "floor" or "trial", "order": a TrialOrder}`."""
    order = TrialOrder(**payload["order"])
    if payload["job"] == "floor":
        return measure_floor(order, report)
    return run_trial(order, report)


def run_trial(order: TrialOrder, report: ProgressListener) -> dict[str, Any]:
    """Run one trial, or what is left of it.

    Returns:
        Its result, as in `result.json`.

    Raises:
        UserError: the loss stops being finite, or data or hardware do not fit the configuration.
    """
    folder = Path(order.folder)

    def waiting(text: str) -> None:
        report(Progress("wait", 0, 1, text))

    with trial_lock(folder, waiting):
        # Another process may have finished it while this one waited.
        result = finished_result(folder)
        if result is not None:
            return result
        return _Trial(order, report).run()


def measure_floor(order: TrialOrder, report: ProgressListener) -> dict[str, Any]:
    """What held-out real images score against the reference: the best that samples can hope for.

    Extracts the reference's features, which all trials then share.

    Returns:
        `metrics` and `identity`, as `AblationRun.trials` takes them.
    """
    config = TrialConfig.model_validate(order.config)
    data = load_data_set(config.data)
    extractor = load_extractor(*_extractor_files(config))
    device = choose_device(config.train).device

    def features(real: RealImages) -> Reference:
        return load_reference(
            real,
            extractor,
            cache_dir=Path(order.references),
            batch_size=config.evaluate.batch_size,
            device=device,
            on_progress=report,
        )

    floor = real_against_real(
        features(_real(data.held_out.pictures, config.evaluate.samples)),
        data.held_out.pictures.picture_shape[1:],
        features(_real(data.train.pictures, config.evaluate.reference_images)),
        extractor,
        samples=config.evaluate.samples,
        inception_splits=config.evaluate.inception_splits,
    )
    measured = {"metrics": quality_metrics(floor), "identity": _identity(floor)}
    write_text(floor_file(config, Path(order.references)), json.dumps(measured, indent=2) + "\n")
    return measured


class _Trial:
    """The stages of one trial, its lock being held."""

    def __init__(self, order: TrialOrder, report: ProgressListener) -> None:
        self.order = order
        self.report = report
        self.folder = Path(order.folder)
        self.config = TrialConfig.model_validate(order.config)
        hardware = choose_device(self.config.train)
        self.device, self.gpu = hardware.device, hardware.gpu

    def run(self) -> dict[str, Any]:
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
        publisher = Publisher(self.folder, store, lambda text: print(text, flush=True))
        publisher.start()
        try:
            result = self._stages(journal)
        except BaseException as error:
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

    def _stages(self, journal: Journal) -> dict[str, Any]:
        # Missing weights should not be found after hours of training.
        check_extractor(*_extractor_files(self.config))
        data = load_data_set(self.config.data)
        with measure_peak_memory(self.device) as peak:
            logger = JournalLogger(journal)
            decision = precision_file(self.config, Path(self.order.references), self.order.threads)
            precision = resolve_precision(self.config, data, self.device, decision)
            trained = train(
                self.config, data, self.folder, self.device, precision, logger, self.report
            )
        network = load_trained(
            self.folder, self.config, data.train.shape, len(data.train.class_names)
        ).to(self.device)
        images, labels, speed = self._sample(network, data)
        self._save_grid(images, labels, data.train.class_names)
        extractor = load_extractor(*_extractor_files(self.config))
        quality = self._measure(images, data, extractor)
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
        }
        journal.metrics(metrics, step=trained.steps)
        journal.tags(tags)
        grids = (Path(names.ARTIFACT_GRID), Path(names.ARTIFACT_GRID_IMAGES))
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

    def _sample(
        self, network: Backbone, data: DataSet
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], float | None]:
        """The samples, drawn now or before, and how fast they were drawn."""
        path, cost = self.folder / SAMPLES, self.folder / _SAMPLING_COST
        if not (path.exists() and cost.exists()):
            self._draw(network, data, path, cost)
        speed: float | None = json.loads(cost.read_text(encoding="utf-8"))["images_per_second"]
        return *load_samples(path), speed

    def _draw(self, network: Backbone, data: DataSet, path: Path, cost: Path) -> None:
        sink = FileSink(self.folder, self.config.evaluate.samples, self.order.hash)
        samples = draw_samples(
            network,
            self.config.sample,
            self.config.objective,
            shape=data.train.shape,
            num_classes=len(data.train.class_names),
            count=self.config.evaluate.samples,
            seed=self.config.seed,
            device=self.device,
            to_pixels=load_decoder(self.config.data, self.device),
            sink=sink,
            on_progress=self.report,
        )
        save_samples(path, samples.images, samples.labels)
        measured = {
            "images_per_second": images_per_second(samples.batches, warmup=1),
            "seconds": samples.seconds,
            "network_evaluations_per_image": samples.network_evaluations,
        }
        write_text(cost, json.dumps(measured, indent=2) + "\n")
        sink.remove()

    def _save_grid(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], class_names: tuple[str, ...]
    ) -> None:
        shown = shown_classes(len(class_names))
        grid = class_grid(images, labels, shown, self.config.sample.grid_images)
        save_grid_png(self.folder / names.ARTIFACT_GRID, grid)
        with atomic_path(self.folder / names.ARTIFACT_GRID_IMAGES) as temporary:
            np.savez_compressed(
                temporary,
                images=grid,
                class_names=np.array([class_names[label] for label in shown]),
            )

    def _measure(
        self, images: NDArray[np.uint8], data: DataSet, extractor: FeatureExtractor
    ) -> Quality:
        reference = load_reference(
            _real(data.train.pictures, self.config.evaluate.reference_images),
            extractor,
            cache_dir=Path(self.order.references),
            batch_size=self.config.evaluate.batch_size,
            device=self.device,
            on_progress=self.report,
        )
        return evaluate_samples(
            images,
            reference,
            extractor,
            inception_splits=self.config.evaluate.inception_splits,
            batch_size=self.config.evaluate.batch_size,
            device=self.device,
            on_progress=self.report,
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
        return {
            **_identity(quality),
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
        }


def _extractor_files(config: TrialConfig) -> tuple[str, Path | None]:
    """Its name, and the file of its weights where one is named."""
    weights = config.evaluate.extractor_weights
    return config.evaluate.extractor, None if weights is None else Path(weights)


def _identity(quality: Quality) -> dict[str, Any]:
    identity: dict[str, Any] = dict(quality.identity)
    fingerprint, count = identity.pop("reference_fingerprint"), identity.pop("reference_images")
    return {**identity, "reference": f"{fingerprint[:12]} ({count} images)"}


def _real(pictures: Pictures, count: int | None) -> RealImages:
    """A fixed random choice of `count` images, or all of them, as extractors take them."""
    if count is not None and count < len(pictures.labels):
        order = torch.randperm(len(pictures.labels), generator=generator("reference-images"))
        pictures = pictures.subset(order[:count].sort().values)
    return RealImages(PictureRows(pictures), pictures.fingerprint())
