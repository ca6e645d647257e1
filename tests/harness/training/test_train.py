from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers.logger import DummyLogger

from harness.config.schema import TrialConfig
from harness.data.batches import BatchOrder, DrawnImages, DrawOrder
from harness.data.datasets import load_data_set
from harness.data.images import to_network
from harness.machine.place import choose_device
from harness.processes.progress import Progress, ignore_progress
from harness.processes.signals import StopRequest
from harness.training.build import build_module
from harness.training.hardware import Timing, measure_step, resolve_precision
from harness.training.train import Training, finished_training, load_trained
from harness.training.validation import held_out_loss
from models.diffusion_module import DiffusionModule
from models.errors import Preempted, UserError
from tests.support.processes.lock_holder import flocked

CPU = torch.device("cpu")


class RecordingLogger(DummyLogger):
    """Keeps what it is given; Lightning's own interface, no stand-in for a service."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.rows.append((step, metrics))

    def series(self, name: str) -> dict[int, float]:
        return {step: row[name] for step, row in self.rows if name in row}


def run(config: TrialConfig, folder: Path, listener: Any = ignore_progress) -> RecordingLogger:
    logger = RecordingLogger()
    device = choose_device(config.train.device)
    Training(config, load_data_set(config.data), folder, device, "32-true", logger, listener).run()
    return logger


def test_loss_goes_down_and_everything_is_logged(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    heard: list[Progress] = []
    config = trial_config("sana", "train.steps=60", "train.log_every=1", "train.batch_size=32")
    logger = run(config, tmp_path, heard.append)
    losses = list(logger.series("train_loss").values())
    assert len(losses) == 60
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert all(norm > 0 for norm in logger.series("gradient_norm").values())
    validated = logger.series("validation_loss")
    assert list(validated) == list(range(10, 61, 10))
    assert validated[60] < validated[10]
    assert [progress.done for progress in heard] == list(range(1, 61))
    assert re.fullmatch(r"loss \d\.\d{3}  [\d,]+ img/s", heard[-1].note)
    summary = finished_training(tmp_path)
    assert summary is not None
    assert summary.validation_loss == validated[60]


def test_saved_weights_are_the_average_that_was_validated(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = trial_config("dydila", "train.steps=6", "train.batch_size=16")
    run(config, tmp_path)
    data = load_data_set(config.data)
    network = load_trained(tmp_path, config)
    objective = build_module(config, data.train.shape, 10).objective
    loss = held_out_loss(network, objective, data.held_out, 7, torch.device("cpu"))
    assert loss == pytest.approx(
        json.loads((tmp_path / "trained.json").read_text())["validation_loss"]
    )


@pytest.mark.parametrize("start", ["first_step", "initial"])
def test_ema_is_the_running_average_of_the_weights(
    trial_config: Callable[..., TrialConfig], tmp_path: Path, start: str
) -> None:
    config = trial_config(
        "sana",
        "train.steps=5",
        "train.batch_size=16",
        "train.ema_decay=0.8",
        f"train.ema_start={start}",
        "train.checkpoint_every=1",
    )
    averages: list[torch.Tensor] = []
    weights: list[torch.Tensor] = []

    def look(progress: Progress) -> None:
        path = tmp_path / "checkpoints" / f"step-{progress.done - 1:08d}.ckpt"
        if path.exists():
            state = torch.load(path, weights_only=True)["state_dict"]
            weights.append(state["backbone.final_layer.linear.bias"])
            averages.append(state["ema.module.final_layer.linear.bias"])

    run(config, tmp_path, look)
    # The last layer's initial bias is zero, as in DiT.
    expected = weights[0] if start == "first_step" else 0.2 * weights[0]
    torch.testing.assert_close(averages[0], expected, rtol=1e-6, atol=0)
    for weight, average in zip(weights[1:], averages[1:], strict=True):
        expected = 0.8 * expected + 0.2 * weight
        torch.testing.assert_close(average, expected)


def test_variants_see_the_same_images_noise_times_and_dropout(
    trial_config: Callable[..., TrialConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    for variant in ("softmax", "sana", "dydila"):
        config = trial_config(variant)
        data = load_data_set(config.data)
        module = build_module(config, data.train.shape, 10)
        order = DrawOrder(len(data.train.labels), config.train.batch_size, config.seed, False)
        # Other draws in between must change nothing.
        torch.randn(len(variant))
        record: list[torch.Tensor] = []
        forward = module.backbone.forward

        def spy(images: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> Any:
            record.extend([images, timesteps, labels])  # noqa: B023
            return forward(images, timesteps, labels)  # noqa: B023

        monkeypatch.setattr(module.backbone, "forward", spy)
        for batch in BatchOrder(order, 3, 5):
            module.batch_losses(DrawnImages(data.train, 0).__getitems__(batch))
        seen[variant] = record
    assert len(seen["sana"]) == 6
    for variant in ("softmax", "dydila"):
        for mine, other in zip(seen[variant], seen["sana"], strict=True):
            assert torch.equal(mine, other)


def test_two_halves_of_a_batch_have_the_losses_of_the_whole(
    trial_config: Callable[..., TrialConfig],
) -> None:
    config = trial_config("sana")
    data = load_data_set(config.data)
    module = build_module(config, data.train.shape, 10)
    torch.nn.init.normal_(module.backbone.final_layer.linear.weight)
    order = DrawOrder(len(data.train.labels), config.train.batch_size, config.seed, False)

    def losses(module: DiffusionModule, rank: int, ranks: int) -> torch.Tensor:
        (draws,) = BatchOrder(order, 7, 8, rank, ranks)
        return module.batch_losses(DrawnImages(data.train, 0).__getitems__(draws))

    whole = losses(module, 0, 1)
    torch.testing.assert_close(losses(module, 0, 2), whole[0::2])
    torch.testing.assert_close(losses(module, 1, 2), whole[1::2])


def test_validation_loss_of_the_zero_network_is_the_power_of_the_target(
    trial_config: Callable[..., TrialConfig],
) -> None:
    config = trial_config("sana")
    data = load_data_set(config.data)
    module = build_module(config, data.train.shape, 10)
    loss = held_out_loss(module.backbone, module.objective, data.held_out, 16, torch.device("cpu"))
    # The untrained network predicts zero, so the flow loss is E|noise - image|^2 a pixel.
    power = 1.0 + to_network(data.held_out.images).square().mean()
    assert loss == pytest.approx(power.item(), rel=0.05)


def test_cuda_where_there_is_none_is_refused(trial_config: Callable[..., TrialConfig]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(UserError, match="no usable CUDA device"):
        choose_device("cuda", "train.device")


def test_ddpm_trains_with_learned_variance(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = trial_config(
        "sana",
        "train.steps=30",
        "train.batch_size=32",
        "train.log_every=1",
        "objective.name=ddpm",
        "sample.sampler=ddim",
    )
    losses = list(run(config, tmp_path).series("train_loss").values())
    assert sum(losses[-5:]) < sum(losses[:5])


def test_automatic_precision_is_the_faster_one_that_keeps_the_loss() -> None:
    assert Timing(1.0, 0.5, 0.7, 0.71).precision == "bf16-mixed"
    assert Timing(1.0, 0.95, 0.7, 0.71).precision == "32-true"
    assert Timing(1.0, 0.5, 0.7, 0.8).precision == "32-true"
    assert Timing(1.0, 0.5, 0.7, float("nan")).precision == "32-true"


def test_a_step_is_timed_in_both_precisions() -> None:
    seen: list[torch.dtype] = []
    matrix = torch.ones(64, 64)

    def step() -> torch.Tensor:
        product = matrix @ matrix
        seen.append(product.dtype)
        return product.float().mean()

    timing = measure_step(step)
    assert seen.count(torch.float32) == seen.count(torch.bfloat16) > 2
    assert timing.float32_seconds > 0
    assert timing.bf16_seconds > 0
    assert timing.float32_loss == timing.bf16_loss == 64.0


def test_automatic_precision_is_measured_once_and_shared(
    trial_config: Callable[..., TrialConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What such a CPU gains is not asked here, only that the measurement runs and is kept.
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    decision = tmp_path / "precision.json"
    precisions = set()
    for variant in ("sana", "dydila"):
        config = trial_config(variant, "train.precision=auto", "train.batch_size=8")
        data = load_data_set(config.data)
        precisions.add(resolve_precision(config, data, CPU, decision, StopRequest()))
        written = decision.read_text()
    assert precisions == {Timing(**json.loads(written)).precision}
    measured = Timing(**json.loads(written))
    assert measured.bf16_loss == pytest.approx(measured.float32_loss, rel=0.05)


def test_a_wait_for_the_precision_ends_when_a_stop_is_requested(
    trial_config: Callable[..., TrialConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    config = trial_config("sana", "train.precision=auto", "train.batch_size=8")
    data = load_data_set(config.data)
    stop = StopRequest()
    threading.Timer(0.2, stop.request, ["SIGTERM"]).start()
    with (
        flocked(tmp_path / "precision.lock"),
        pytest.raises(Preempted, match="stopped by SIGTERM before its precision was known"),
    ):
        resolve_precision(config, data, CPU, tmp_path / "precision.json", stop)
