"""What the harness adds to the time of a training step, beside a plain PyTorch loop.

The loop has the trainer's network, loss, noise, optimizer, schedule, clipping and EMA, so that its
weights are the trainer's bit by bit. It has no trainer, callback, logging, check or checkpoint.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from harness.config.schema import TrialConfig
from harness.data.batches import BatchOrder, draw_order, loader_of
from harness.data.datasets import load_data_set
from harness.data.images import DataSet, ImageSet
from harness.machine.place import choose_device
from harness.processes.progress import Progress, ProgressListener
from harness.tracking.journal import Journal
from harness.tracking.lightning_logger import JournalLogger
from harness.tracking.publisher import THREAD_NAME, Publisher
from harness.tracking.store import Store
from harness.training.build import build_module
from harness.training.hardware import Precision
from harness.training.train import Training
from models.diffusion_module import Batch

WARM_UP_STEPS = 10

_EXPERIMENT = "benchmark"


class BareLoop:
    """One process's training, step by step, at one rate of learning for all weights and without
    accumulation."""

    def __init__(
        self, config: TrialConfig, images: ImageSet, device: torch.device, precision: Precision
    ) -> None:
        train = config.train
        self.config = config
        self.images = images
        self.device = device
        self.half = precision == "bf16-mixed"
        self.module = build_module(config, images.shape, len(images.class_names)).to(device)
        self.network = self.module.backbone
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=train.learning_rate,
            betas=train.betas,
            weight_decay=train.weight_decay,
            fused=True,
        )
        warmup = max(train.warmup_steps, 1)
        self.schedule = LambdaLR(self.optimizer, lambda step: min((step + 1) / warmup, 1.0))
        average = get_ema_multi_avg_fn(train.ema_decay)
        self.ema = AveragedModel(self.network, multi_avg_fn=average)

    def batches(self) -> DataLoader[Batch]:
        """The batches of all steps, in order."""
        order = BatchOrder(draw_order(self.config, self.images), 0, self.config.train.steps)
        return loader_of(self.images, order, self.config.seed, self.config.data.workers)

    def step(self, batch: Batch) -> Tensor:
        """Train on a batch; its mean loss."""
        batch = Batch(*(part.to(self.device) for part in batch))
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            loss = self.module.batch_losses(batch).mean()
        loss.backward()
        limit = self.config.train.gradient_clip or float("inf")
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        self.optimizer.step()
        self.schedule.step()
        self.ema.update_parameters(self.network)
        return loss.detach()


@dataclass(frozen=True)
class Round:
    """One training, in which each step of the harness was followed by the same one of the loop."""

    harness: NDArray[np.float64]
    """(blocks, 2): seconds a step of wall time and of the training thread's CPU time, means over
    as many steps as lie between two logged metrics."""
    bare: NDArray[np.float64]
    """The loop's times in the same blocks, (blocks, 2)."""
    publisher: float
    """Seconds of CPU a step that the thread took which sends metrics to MLflow. It sends every two
    seconds, so this is the less the shorter a step is."""

    @property
    def ratios(self) -> tuple[float, float]:
        """The harness's time over the loop's, medians of the blocks: of wall time, and of CPU time
        with the publisher's counted, which other programs disturb less."""
        wall, cpu = np.median(np.add(self.harness, (0, self.publisher)) / self.bare, axis=0)
        return float(wall), float(cpu)


def measure_step_overhead(
    config: TrialConfig, folder: Path, steps: int, rounds: int, on_progress: ProgressListener
) -> list[Round]:
    """Train with the harness and with a plain loop, step by step in turns, from the same start.

    The harness trains as in a trial: Lightning, its callbacks, a journal, and a publisher that
    sends it to an MLflow database in the background. Validation and checkpoints, which the plain
    loop does not have, are left out, and so are the first ten steps of a round.

    A round is one training; of its `steps` whole blocks of `train.log_every` are timed. What the
    harness writes goes to `folder`.
    """
    total = WARM_UP_STEPS + steps
    fields = {"steps": total, "validate_every": total + 1, "checkpoint_every": total + 1}
    config = config.model_copy(update={"train": config.train.model_copy(update=fields)})
    data = load_data_set(config.data)
    store = Store(f"sqlite:///{folder / 'mlflow.db'}", folder)
    store.prepare(_EXPERIMENT, lambda _: None)
    found = []
    for done in range(1, rounds + 1):
        found.append(_train_in_turns(config, data, folder / f"round{done}", store))
        on_progress(Progress("rounds", done, rounds))
    return found


def _train_in_turns(config: TrialConfig, data: DataSet, folder: Path, store: Store) -> Round:
    device = choose_device(config.train.device, "train.device")
    precision: Precision = "bf16-mixed" if config.train.precision == "bf16-mixed" else "32-true"
    loop = BareLoop(config, data.train, device, precision)
    batches = iter(loop.batches())
    clocks: list[tuple[float, float]] = []
    sent = 0.0

    def look_at_clocks() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        clocks.append((time.perf_counter(), time.thread_time()))

    def take_turns(_progress: Progress) -> None:
        """Called at the end of each of the harness's steps."""
        nonlocal sent
        look_at_clocks()
        loop.step(next(batches))
        look_at_clocks()
        if len(clocks) == 1 + 2 * WARM_UP_STEPS:
            sent = _cpu_seconds_of(THREAD_NAME)

    journal = Journal(folder)
    journal.start(experiment=_EXPERIMENT, run_name=folder.name, tags={}, params={})
    publisher = Publisher(folder, store, lambda _: None)
    publisher.start()
    look_at_clocks()
    Training(config, data, folder, device, precision, JournalLogger(journal), take_turns).run()
    timed = config.train.steps - WARM_UP_STEPS
    sending = (_cpu_seconds_of(THREAD_NAME) - sent) / timed
    journal.end("FINISHED")
    publisher.close()
    journal.close()
    size = min(config.train.log_every, timed)
    seconds = np.diff(clocks, axis=0)[2 * WARM_UP_STEPS :][: timed // size * size * 2]
    blocks = seconds.reshape(-1, size, 2, 2).mean(axis=1)
    return Round(harness=blocks[:, 0], bare=blocks[:, 1], publisher=sending)


def _cpu_seconds_of(thread_name: str) -> float:
    """What a thread that runs has used of a CPU; 0 where there is none, or the system says not."""
    for thread in threading.enumerate():
        if thread.name == thread_name and thread.ident is not None:
            return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return 0.0
