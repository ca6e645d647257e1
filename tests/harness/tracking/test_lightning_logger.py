from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from harness.tracking.journal import Journal
from harness.tracking.lightning_logger import JournalLogger


class Counting(LightningModule):
    """Logs its step number as a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.save_hyperparameters({"width": 8})

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        self.log("train_loss", torch.tensor(float(self.global_step)))
        return (self.weight * batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path)
    journal.start(experiment="digits", run_name="r", tags={}, params={})
    return journal


def test_a_training_run_is_logged_by_step_without_epoch_and_hyperparameters(
    journal: Journal,
) -> None:
    trainer = Trainer(
        max_steps=6,
        log_every_n_steps=2,
        logger=JournalLogger(journal),
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Counting(), DataLoader(torch.ones(4, 1)))
    lines = (journal.folder / "tracking.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines][1:]
    # Lightning logs every second step, after the step has been taken.
    assert [(e["step"], e["values"]) for e in events] == [
        (1, {"train_loss": 1.0}),
        (3, {"train_loss": 3.0}),
        (5, {"train_loss": 5.0}),
    ]


def test_a_metric_without_a_step_is_refused(journal: Journal) -> None:
    with pytest.raises(ValueError, match="step"):
        JournalLogger(journal).log_metrics({"train_loss": 1.0})
