"""What each process of a training with validation samples does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import DummyLogger

from harness.config.serialisation import from_yaml_file
from harness.data.datasets import load_data_set
from harness.evaluation.extractors import load_extractor
from harness.evaluation.features import Extraction
from harness.evaluation.reference import PictureRows, RealImages, Reference, load_reference
from harness.processes.progress import ProgressListener
from harness.processes.ranks import group_of_environment
from harness.processes.signals import StopRequest
from harness.tracking.journal import Journal
from harness.tracking.lightning_logger import JournalLogger
from harness.training.train import Training
from harness.trial.samples import ValidationSamples


def train_and_validate(
    payload: Mapping[str, Any], report: ProgressListener, stop: StopRequest
) -> dict[str, Any]:
    """Train as `payload["config"]` says, and tell how many processes there were."""
    folder, cpu = Path(payload["folder"]), torch.device("cpu")
    config = from_yaml_file(Path(payload["config"]))
    data = load_data_set(config.data)

    def load_measuring() -> tuple[Extraction, Reference]:
        extraction = Extraction(load_extractor("efficientnet_lite0"), 30, cpu)
        real = RealImages(
            PictureRows(data.train.pictures.subset(torch.arange(30))), "thirty digits"
        )
        return extraction, load_reference(real, extraction, folder / "references")

    with group_of_environment() as group:
        # The others would fail to write there, and leave a file where a folder should be.
        own = folder if group.leads else folder / "config.yaml"
        logger: Logger = DummyLogger()
        if group.leads:
            journal = Journal(folder)
            journal.start(experiment="smoke", run_name="sana/seed0", tags={}, params={})
            logger = JournalLogger(journal)
        samples = ValidationSamples(config, own, cpu, load_measuring, lambda *_: None, report)
        Training(config, data, folder, cpu, "32-true", logger, report, samples).run()
        return {"processes": group.size}
