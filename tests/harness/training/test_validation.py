"""Which weights are kept as the best ones, also where a training is cut off on the way."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from safetensors.torch import load_file

from harness.config.schema import TrialConfig
from harness.data.datasets import load_data_set
from harness.processes.progress import ignore_progress
from harness.training import pace
from harness.training.build import build_backbone
from harness.training.train import Training, finished_training, load_trained
from harness.training.validation import Best, BestWeights, ValidationFigures, read_best
from harness.vocabulary.metrics import JudgedBy
from models.backbone import Backbone
from models.errors import UserError

STEPS = 12


class Figures:
    """Measures by a script, notes what it is given, and fails once at a step if told to."""

    def __init__(self, script: dict[int, float], fail_at: int | None = None) -> None:
        self.script = script
        self.fail_at = fail_at
        self.seen: dict[int, torch.Tensor] = {}
        self.steps: list[int] = []

    def __call__(self, network: Backbone, step: int) -> ValidationFigures:
        assert not network.training
        if step == self.fail_at:
            self.fail_at = None
            raise OSError("the machine went away in the middle of a validation")
        self.steps.append(step)
        self.seen[step] = network.final_layer.linear.bias.detach().clone()
        value = self.script[step]
        return ValidationFigures({"validation/fd": value}, {"fd": value})


class Recorder(DummyLogger):
    def __init__(self) -> None:
        super().__init__()
        self.values: list[tuple[int, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "validation/fd" in metrics:
            assert step is not None
            self.values.append((step, metrics["validation/fd"]))


@pytest.fixture(scope="module")
def config(trial_config: Callable[..., TrialConfig]) -> TrialConfig:
    return trial_config(
        "sana",
        f"train.steps={STEPS}",
        "train.batch_size=8",
        "train.checkpoint_every=4",
        "train.validation_samples=10",
        "train.validation_samples_every=3",
        "train.best_by=fd",
        "train.ema_decay=0.5",
        "model.depth=1",
    )


def run(config: TrialConfig, folder: Path, measure: Figures | None) -> Recorder:
    logger, data = Recorder(), load_data_set(config.data)
    device = torch.device("cpu")
    Training(config, data, folder, device, "32-true", logger, ignore_progress, measure).run()
    return logger


def shortened(config: TrialConfig, steps: int) -> TrialConfig:
    """The same training, ended early and without validation samples."""
    settings = {
        "steps": steps,
        "validation_samples": 0,
        "validation_samples_every": None,
        "best_by": None,
    }
    return config.model_copy(update={"train": config.train.model_copy(update=settings)})


def test_the_best_weights_are_those_of_a_training_that_ends_at_the_best_step(
    config: TrialConfig, tmp_path: Path
) -> None:
    measure = Figures({3: 5.0, 6: 2.0, 9: math.nan, 12: 3.0})
    logger = run(config, tmp_path / "whole", measure)
    assert measure.steps == [3, 6, 9, 12]
    assert [step for step, _ in logger.values] == [3, 6, 9, 12]
    assert read_best(tmp_path / "whole") == Best(6, "fd", 2.0)
    run(shortened(config, 6), tmp_path / "short", None)
    best = (tmp_path / "whole" / "best.safetensors").read_bytes()
    assert best == (tmp_path / "short" / "ema.safetensors").read_bytes()
    run(shortened(config, STEPS), tmp_path / "plain", None)
    last = (tmp_path / "whole" / "ema.safetensors").read_bytes()
    assert last == (tmp_path / "plain" / "ema.safetensors").read_bytes()
    network = load_trained(tmp_path / "whole", config, "best")
    assert torch.equal(network.final_layer.linear.bias, measure.seen[6])
    with pytest.raises(UserError, match=r"holds no best weights: train\.best_by was null"):
        load_trained(tmp_path / "plain", config, "best")


def test_a_training_cut_off_in_a_validation_repeats_that_one_alone(
    config: TrialConfig, tmp_path: Path
) -> None:
    script = {3: 5.0, 6: 4.0, 9: 6.0, 12: 4.5}
    run(config, tmp_path / "whole", Figures(script))
    cut = Figures(script, fail_at=9)
    with pytest.raises(OSError, match="went away"):
        run(config, tmp_path / "cut", cut)
    # The newest checkpoint is of step 8, so the best of step 6 is part of it. What lies in the
    # folder may be of steps after that, on a machine that does not repeat itself bit by bit.
    (tmp_path / "cut" / "best.safetensors").write_bytes(b"of a training that never was")
    (tmp_path / "cut" / "best.json").write_text('{"step": 9, "metric": "fd", "value": 0.0}')
    run(config, tmp_path / "cut", cut)
    assert cut.steps == [3, 6, 9, 12]
    assert read_best(tmp_path / "cut") == Best(6, "fd", 4.0)
    for name in ("best.safetensors", "best.json", "ema.safetensors"):
        expected = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "cut" / name).read_bytes() == expected


def test_a_training_cut_off_after_its_last_step_still_has_the_best(
    config: TrialConfig, tmp_path: Path
) -> None:
    script = {3: 5.0, 6: 4.0, 9: 6.0, 12: 1.0}
    run(config, tmp_path, Figures(script))
    best = (tmp_path / "best.safetensors").read_bytes()
    for name in ("trained.json", "ema.safetensors", "best.safetensors", "best.json"):
        (tmp_path / name).unlink()
    again = Figures({})
    run(config, tmp_path, again)
    assert again.steps == []
    assert read_best(tmp_path) == Best(12, "fd", 1.0)
    assert (tmp_path / "best.safetensors").read_bytes() == best


def test_weights_can_be_the_best_by_the_held_out_loss(config: TrialConfig, tmp_path: Path) -> None:
    """That of a network that learns falls, so the last weights are the best."""
    settings = {"best_by": "validation_loss", "validate_every": 4, "learning_rate": 0.01}
    train_config = shortened(config, 12).train.model_copy(update=settings)
    falling = config.model_copy(update={"train": train_config})
    run(falling, tmp_path, None)
    summary = json.loads((tmp_path / "trained.json").read_text())
    best = read_best(tmp_path)
    assert best is not None
    assert (best.step, best.metric) == (12, "validation_loss")
    assert best.value == summary["validation_loss"]
    last, kept = load_file(tmp_path / "ema.safetensors"), load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(kept[name], last[name]) for name in last)


@pytest.mark.parametrize("metric", get_args(JudgedBy))
def test_every_metric_has_a_good_end_and_nothing_else_is_best(
    metric: JudgedBy, config: TrialConfig, tmp_path: Path
) -> None:
    lower = metric in ("validation_loss", "fd", "sfd", "kd")
    good, better = (2.0, 1.0) if lower else (1.0, 2.0)
    network = build_backbone(config, (1, 8, 8), 10)
    best = BestWeights(tmp_path, metric)
    best.offer(1, {metric: math.nan}, network)
    best.offer(2, {metric: math.inf}, network)
    best.offer(3, {}, network)
    assert best.best is None
    assert not list(tmp_path.iterdir())
    for step, value in enumerate([good, better, better, good, math.nan, -math.inf], start=4):
        best.offer(step, {metric: value}, network)
    assert best.best == read_best(tmp_path) == Best(5, metric, better)


def test_validation_takes_no_time_of_training(
    trial_config: Callable[..., TrialConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that goes on by one second each time it is read, and by 1,000 in a validation."""
    ticks = count()
    monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    config = trial_config(
        "sana",
        "train.steps=14",
        "train.batch_size=8",
        "train.validation_samples=10",
        "train.validation_samples_every=1",
        "model.depth=1",
    )
    steps = []

    def slow(network: Backbone, step: int) -> ValidationFigures:
        for _ in range(1000):
            next(ticks)
        steps.append(step)
        return ValidationFigures({}, {})

    data, cpu = load_data_set(config.data), torch.device("cpu")
    Training(config, data, tmp_path, cpu, "32-true", DummyLogger(), ignore_progress, slow).run()
    assert steps == list(range(1, 15))
    summary = finished_training(tmp_path)
    assert summary is not None
    assert summary.images_per_second == 8.0
