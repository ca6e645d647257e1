from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader
from torchmetrics.image import FrechetInceptionDistance, InceptionScore, KernelInceptionDistance
from typing_extensions import override

from harness.evaluation.metrics.inception_score import inception_score
from harness.evaluation.metrics.kernel_distance import kernel_distance
from harness.evaluation.metrics.neighbours import neighbour_scores
from harness.evaluation.metrics.torch_metrics import (
    InceptionScoreMetric,
    KernelDistanceMetric,
)
from tests.support.figures import frechet_distance_of_features
from tests.support.ranks import metric_tasks as tasks
from tests.support.ranks.metric_tasks import NUMBERS, REAL, SAMPLES
from tests.support.ranks.together import run_together

SORTED = SAMPLES[np.argsort(NUMBERS)]


def expected() -> dict[str, Any]:
    """The functions' values of the samples in the order of their numbers."""
    return {
        "fd": frechet_distance_of_features(SAMPLES, REAL),
        "kd": kernel_distance(SORTED, REAL, subsets=7, subset_size=40).mean,
        "is": inception_score(SORTED, 4, 0).mean,
        "pr": neighbour_scores(SORTED, REAL)._asdict(),
    }


@pytest.mark.parametrize("size", [1, 10, 83])
def test_batches_of_any_size_give_the_functions_values(size: int) -> None:
    for name, metric in tasks.metrics().items():
        for start in range(0, len(SAMPLES), size):
            tasks.take(metric, np.arange(start, min(start + size, len(SAMPLES))))
        assert tasks.plain(metric.compute()) == pytest.approx(expected()[name], rel=1e-12), name


@pytest.mark.parametrize("case", ["unequal", "one has none", "repeated"])
def test_two_processes_give_the_values_of_one(case: str, tmp_path: Path) -> None:
    whole = list(range(len(SAMPLES)))
    shares: dict[str, list[list[list[int]]]] = {
        "unequal": [[whole[:50], whole[50:61]], [whole[61:]]],
        "one has none": [[whole], []],
        # As a distributed sampler fills the last batch.
        "repeated": [[whole[:50]], [whole[50:], whole[:3]]],
    }
    found = run_together(tasks.compute_together, 2, tmp_path, shares[case])
    assert found[0] == found[1]
    for name, value in expected().items():
        if case != "repeated" or name != "fd":
            assert found[0][name] == pytest.approx(value, rel=1e-12), name
    if case == "repeated":
        repeated = frechet_distance_of_features(np.concatenate([SAMPLES, SAMPLES[:3]]), REAL)
        assert found[0]["fd"] == pytest.approx(repeated, rel=1e-12)


def test_a_metric_begins_anew_after_a_reset_and_survives_pickling() -> None:
    for name, metric in tasks.metrics().items():
        tasks.take(metric, np.arange(40))
        metric.reset()
        metric = pickle.loads(pickle.dumps(metric))
        tasks.take(metric, np.arange(len(SAMPLES)))
        assert tasks.plain(metric.compute()) == pytest.approx(expected()[name], rel=1e-12), name


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 12\)"):
        KernelDistanceMetric(REAL).update(torch.zeros(3, 11), torch.arange(3))
    with pytest.raises(ValueError, match="dimensions"):
        tasks.metrics()["fd"].update(torch.zeros(3, 11))


class _Module(pl.LightningModule):
    """Validates a network of one weight, whose outputs are the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.metrics = torch.nn.ModuleDict(tasks.metrics())

    @override
    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        return self.weight.square()

    @override
    def validation_step(self, batch: torch.Tensor) -> None:
        for name, metric in self.metrics.items():
            tasks.take(metric, batch.numpy())
            if name != "pr":
                self.log(name, metric)

    @override
    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.metrics["pr"].compute())
        self.metrics["pr"].reset()

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
def test_lightning_logs_them_as_its_own(tmp_path: Path) -> None:
    rows = DataLoader(range(len(SAMPLES)), batch_size=16)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        num_sanity_val_steps=1,
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(_Module(), rows, rows)
    values = expected()
    values |= values.pop("pr")
    assert {key: float(value) for key, value in trainer.logged_metrics.items()} == pytest.approx(
        values, rel=1e-6
    )


class _Features(torch.nn.Module):
    """Takes (B, 3, H, W) images whose first pixels are the features."""

    num_features = 12

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0, 0, :12].double()


def _as_images(rows: np.ndarray) -> torch.Tensor:
    images = torch.zeros(len(rows), 3, 12, 12)
    images[:, :, 0, :] = torch.from_numpy(rows)[:, None]
    return images


def _ours(name: str) -> float:
    metric = tasks.metrics()[name]
    tasks.take(metric, np.arange(len(SAMPLES)))
    return float(metric.compute())


@pytest.mark.filterwarnings("ignore")
def test_the_values_are_those_of_torchmetrics() -> None:
    """Where they have one sample of everything: KID of one whole subset, IS of one split."""
    fid = FrechetInceptionDistance(_Features(), normalize=True, input_img_size=(3, 12, 12))
    fid.set_dtype(torch.float64)
    count = min(len(SAMPLES), len(REAL))
    kid = KernelInceptionDistance(_Features(), subsets=1, subset_size=count)
    score = InceptionScore(_Features(), splits=1)
    ours = KernelDistanceMetric(REAL, subsets=1, subset_size=count)
    ours.update(torch.from_numpy(SAMPLES[:count]), torch.arange(count))
    for images, real in ((_as_images(REAL), True), (_as_images(SAMPLES), False)):
        for start in range(0, len(images), 32):
            fid.update(images[start : start + 32], real=real)
    kid.update(_as_images(REAL[:count]), real=True)
    kid.update(_as_images(SAMPLES[:count]), real=False)
    score.update(_as_images(SAMPLES))
    alone = InceptionScoreMetric(12, splits=1)
    alone.update(torch.from_numpy(SAMPLES), torch.arange(len(SAMPLES)))
    assert _ours("fd") == pytest.approx(float(fid.compute()), rel=1e-5)
    assert float(ours.compute()) == pytest.approx(float(kid.compute()[0]), rel=1e-5)
    assert float(alone.compute()) == pytest.approx(float(score.compute()[0]), rel=1e-5)
