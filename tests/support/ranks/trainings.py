"""Trainings one after the other in the same processes: what `run_ranks` calls in the tests."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers.logger import DummyLogger

from harness.config.schema import TrialConfig
from harness.data.datasets import load_data_set
from harness.machine.place import place_from_environment
from harness.processes.meeting import Meeting
from harness.processes.progress import ProgressListener, ignore_progress
from harness.processes.ranks import run_ranks
from harness.processes.signals import StopRequest
from harness.training import train as training
from models.diffusion_module import DiffusionModule

Curves = dict[str, dict[int, float]]


class RecordingLogger(DummyLogger):
    def __init__(self) -> None:
        super().__init__()
        self.curves: Curves = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        for name, value in metrics.items():
            if name != "epoch" and not name.endswith("per_second"):
                self.curves.setdefault(name, {})[step] = float(value)


def train_all(
    payload: dict[str, Any], report: ProgressListener, stop: StopRequest | None = None
) -> dict[str, Any]:
    """Each case is a configuration and a folder.

    Returns:
        By case: the curves, and of each process the hash of its EMA weights.
    """
    made: list[DiffusionModule] = []
    build = training.build_module

    def remember(*arguments: Any) -> DiffusionModule:
        made.append(build(*arguments))
        return made[-1]

    training.build_module = remember
    found = {}
    with Meeting(place_from_environment()) as meeting:
        group = meeting.begin(cuda=False)
        for name, (plain, folder) in payload["cases"].items():
            logger = RecordingLogger()
            config = TrialConfig.model_validate(plain)
            training.Training(
                config,
                load_data_set(config.data),
                Path(folder),
                torch.device("cpu"),
                "32-true",
                logger,
                report,
            ).run()
            hashes = group.gather(hash_of(made[-1].ema_backbone))
            found[name] = {"curves": logger.curves, "hashes": hashes}
    training.build_module = build
    return found


def train_on_two(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What `train_all` gives on two processes, which talk over gloo."""
    found: dict[str, Any] = run_ranks(
        "tests.support.ranks.trainings:train_all",
        payload,
        processes=2,
        threads=1,
        log_path=folder / "log.txt",
        report=ignore_progress,
        stop=StopRequest(),
    )
    # Keys of JSON are text.
    for case in found.values():
        case["curves"] = {
            name: {int(step): value for step, value in curve.items()}
            for name, curve in case["curves"].items()
        }
    return found


def hash_of(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, values in network.state_dict().items():
        digest.update(name.encode())
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()


def differences(first: Curves, second: Curves) -> dict[str, float]:
    """The largest relative difference of each curve; infinite where steps or names differ."""
    worst = {}
    for name in {*first, *second}:
        ours, theirs = first.get(name, {}), second.get(name, {})
        worst[name] = math.inf
        if ours.keys() == theirs.keys():
            worst[name] = max(
                abs(ours[step] - theirs[step]) / max(abs(ours[step]), 1e-3) for step in ours
            )
    return worst
