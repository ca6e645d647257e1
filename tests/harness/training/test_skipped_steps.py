"""Leaving out the batches of steps whose loss is not finite."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from safetensors.torch import load_file, load_model

from benchmarks.steps import BareLoop
from harness.config.schema import TrialConfig
from harness.config.serialisation import to_plain
from harness.data.batches import BatchOrder, DrawOrder
from harness.data.datasets import load_data_set
from harness.data.images import DataSet
from harness.processes.progress import Progress, ignore_progress
from harness.processes.ranks import run_ranks
from harness.processes.signals import StopRequest
from harness.training.checkpoints import resumable_checkpoint
from harness.training.train import Training, finished_training
from models.errors import UserError
from tests.support.stand_ins.poisoned import Poisoned

TINY = ("train.steps=10", "train.batch_size=16", "train.checkpoint_every=4", "model.depth=1")
CPU = torch.device("cpu")


class RecordingLogger(DummyLogger):
    """Keeps what it is given; Lightning's own interface, no stand-in for a service."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped: dict[int, float] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        if "skipped_steps" in metrics:
            self.skipped[step] = metrics["skipped_steps"]


def drawn_at(config: TrialConfig, data: DataSet, steps: list[int]) -> list[int]:
    """An image of the batch of each of these steps; within the first epoch no other step has it."""
    order = DrawOrder(len(data.train.labels), config.train.batch_size, config.seed, False)
    return [next(iter(BatchOrder(order, step, step + 1)))[3].image for step in steps]


def poisoned(config: TrialConfig, steps: list[int]) -> DataSet:
    data = load_data_set(config.data)
    return replace(data, train=Poisoned(data.train, drawn_at(config, data, steps)))


def run(config: TrialConfig, data: DataSet, folder: Path) -> tuple[RecordingLogger, list[int]]:
    logger = RecordingLogger()
    heard: list[int] = []

    def listen(progress: Progress) -> None:
        heard.append(progress.done)

    Training(config, data, folder, CPU, "32-true", logger, listen).run()
    return logger, heard


def test_the_weights_are_those_of_a_plain_loop_without_these_batches(
    trial_config: Callable[..., TrialConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = trial_config("sana", *TINY, "train.on_non_finite=skip", "train.warmup_steps=8")
    logger, heard = run(config, poisoned(config, [2, 6]), tmp_path)
    loop = BareLoop(config, load_data_set(config.data).train, CPU, "32-true")
    for step, batch in enumerate(loop.batches()):
        if step in (2, 6):
            loop.schedule.step()
        else:
            loop.step(batch)
    actual = BareLoop(config, load_data_set(config.data).train, CPU, "32-true").network
    load_model(actual, tmp_path / "ema.safetensors")
    for name, weight in loop.ema.module.state_dict().items():
        assert torch.equal(actual.state_dict()[name], weight), name
    # Back to the beginning after step 2, to the checkpoint of step 4 after step 6.
    assert heard == [1, 2, 1, 2, 3, 4, 5, 6, 5, 6, 7, 8, 9, 10]
    assert logger.skipped == {2: 1, 6: 2}
    assert "not finite at step 6" in caplog.text
    summary = finished_training(tmp_path)
    assert summary is not None
    assert summary.skipped_steps == (2, 6)
    checkpoint = resumable_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    callbacks = torch.load(checkpoint, weights_only=True)["callbacks"]
    assert {"steps": [2, 6]} in callbacks.values()


def test_an_infinite_gradient_of_a_finite_loss_is_noticed(
    trial_config: Callable[..., TrialConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trial_config("sana", *TINY)
    from models.diffusion_module import DiffusionModule

    original = DiffusionModule.on_before_optimizer_step

    def overflow(self: DiffusionModule, optimizer: torch.optim.Optimizer) -> None:
        original(self, optimizer)
        if self.global_step == 3:
            weight = self.backbone.final_layer.linear.weight
            assert weight.grad is not None
            weight.grad[0, 0] = float("inf")

    monkeypatch.setattr(DiffusionModule, "on_before_optimizer_step", overflow)
    with pytest.raises(UserError, match="norm of the gradient became inf at step 3"):
        Training(
            config,
            load_data_set(config.data),
            tmp_path,
            CPU,
            "32-true",
            RecordingLogger(),
            ignore_progress,
        ).run()


def test_stopping_is_the_default_and_says_what_to_do(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = trial_config("sana", *TINY)
    with pytest.raises(
        UserError,
        match=r"loss became nan at step 5; lower train\.learning_.*on_non_finite=skip",
    ):
        run(config, poisoned(config, [5]), tmp_path)
    assert not (tmp_path / "skipped.json").exists()


def test_too_many_skips_end_the_trial_with_one_clear_line(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = trial_config("sana", *TINY, "train.on_non_finite=skip", "train.most_skips=2")
    with pytest.raises(UserError, match=r"at steps 1, 3, 5, and no more than train\.most_skips=2"):
        run(config, poisoned(config, [1, 3, 5]), tmp_path)
    assert json.loads((tmp_path / "skipped.json").read_text()) == [1, 3]


@pytest.mark.slow
def test_processes_that_train_together_leave_out_the_same_steps(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    small = (*TINY, "train.on_non_finite=skip", "train.device=cpu", "model.width=32")
    config = trial_config("sana", *small)
    bad = drawn_at(config, load_data_set(config.data), [2, 6])
    # The fourth image of a batch is process 1's; process 0 sees finite losses only.
    Training(
        config,
        poisoned(config, [2, 6]),
        tmp_path / "alone",
        CPU,
        "32-true",
        RecordingLogger(),
        ignore_progress,
    ).run()
    cases = {
        strategy: (
            to_plain(trial_config("sana", *small, f"train.strategy={strategy}")),
            str(tmp_path / strategy),
        )
        for strategy in ("ddp", "fsdp")
    }
    found = run_ranks(
        "tests.support.ranks.skips:train_poisoned",
        {"cases": cases, "bad_images": bad},
        processes=2,
        threads=1,
        log_path=tmp_path / "log.txt",
        report=ignore_progress,
        stop=StopRequest(),
    )
    assert found == {"ddp": [[2, 6], [2, 6]], "fsdp": [[2, 6], [2, 6]]}
    alone = load_file(tmp_path / "alone" / "ema.safetensors")
    for strategy in cases:
        for name, weight in load_file(tmp_path / strategy / "ema.safetensors").items():
            torch.testing.assert_close(weight, alone[name], rtol=1e-3, atol=1e-5)
