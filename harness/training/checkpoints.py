"""Checkpoints of a training that are whole or not there, and stopping after a step with one."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from harness.machine.files import atomic_path, file_digest, remove_leftovers, write_text
from harness.processes.progress import ProgressListener, ignore_progress, warn
from harness.processes.signals import StopRequest
from harness.training.export import shape_difference
from harness.training.pace import record
from harness.vocabulary.names import BALANCE_LOSS, GRADIENT_NORM, TRAIN_LOSS
from models.errors import Preempted, UserError

_KEPT = 2
_REMEDY = (
    "remove it, and the same command goes on from the checkpoint before it, or from the beginning"
)
_NAME = re.compile(r"step-\d{8}\.ckpt")


class WriteInPlace(TorchCheckpointIO):
    """Writes a checkpoint straight to its path, and reads none that is of another network.

    Lightning itself writes to the system's temporary folder and moves the file: that folder may be
    too small, a move to another disk is a second copy, and a killed process leaves its file there.
    """

    def __init__(self, shapes: Mapping[str, torch.Size]) -> None:
        """`shapes` are those of all that the module to be trained keeps, by their names."""
        super().__init__()
        self._shapes = shapes

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        # Through a file of Python's, so that a full disk is an OSError that says so.
        with Path(path).open("wb") as stream:
            torch.save(checkpoint, stream)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Raises a UserError where the file holds code, or weights of another network."""
        try:
            checkpoint: dict[str, Any] = super().load_checkpoint(path, *args, **kwargs)
            wrong = shape_difference(checkpoint["state_dict"], self._shapes)
            # Without these Lightning begins to resume, and fails or leaves the state behind.
            checkpoint["loops"]["fit_loop"], checkpoint["optimizer_states"][0]
        except (pickle.UnpicklingError, LookupError, AttributeError, TypeError, EOFError) as error:
            raise UserError(
                f"{path} holds other things than weights and the state of a training: {_REMEDY}"
            ) from error
        if wrong:
            raise UserError(f"{path} is of another network: {wrong}: {_REMEDY}")
        return checkpoint


@dataclass(eq=False)
class Checkpoints(pl.Callback):
    """Saves every `every` steps, after the last one and where a stop is asked for; keeps two.

    After the step in which a stop is requested, `Preempted` is raised. All processes of a training
    stop after the same step: whether one of them was asked is settled by one small reduction a
    step. The last step is left to end the training. Belongs behind all callbacks that record a
    step, so that what resumes has recorded as much as one that never stopped.
    """

    folder: Path
    """Of this trial's checkpoints alone."""
    every: int
    log_every: int
    """Steps between two for which losses are recorded."""
    stop: StopRequest
    _last_saved: int = -1

    def on_train_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.is_global_zero:
            remove_leftovers(self.folder, "step-*")
        # Lightning's own handler of SIGTERM would start a collective at any moment of a step.
        self.stop.listen_again()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        step = trainer.global_step
        if step % self.every == 0:
            self._save(trainer)
        if step < trainer.max_steps and self._is_asked_to_stop(trainer):
            self._save(trainer)
            raise Preempted(self.stop.reason or "a signal to another process", f"at step {step}")

    def on_train_end(self, trainer: pl.Trainer, *_: object) -> None:
        self._save(trainer)

    def _is_asked_to_stop(self, trainer: pl.Trainer) -> bool:
        if trainer.world_size == 1:
            return self.stop.requested
        return bool(trainer.strategy.reduce_boolean_decision(self.stop.requested, all=False))

    def _save(self, trainer: pl.Trainer) -> None:
        """Save the present step, unless it is saved already."""
        step = trainer.global_step
        if step == self._last_saved:
            return
        if step % self.log_every == 0:
            _record_step(trainer)
        path = self.folder / f"step-{step:08d}.ckpt"
        if not trainer.is_global_zero:
            # Takes part in gathering what is saved, and writes nothing.
            trainer.save_checkpoint(path, weights_only=False)
        else:
            with atomic_path(path) as temporary:
                trainer.save_checkpoint(temporary, weights_only=False)
            write_text(_digest_path(path), file_digest(path))
            # Newer ones are damaged, or training would have gone on from them.
            kept = [p for p in _newest_first(self.folder) if step_of(p) <= step][:_KEPT]
            for old in set(_newest_first(self.folder)) - set(kept):
                old.unlink()
                _digest_path(old).unlink(missing_ok=True)
        self._last_saved = step


def _record_step(trainer: pl.Trainer) -> None:
    """Record what the module logged in the present step.

    Lightning does so only behind all callbacks. Whoever resumes from this step's checkpoint does
    not repeat the step, so its loss would be lost where the process ends in between.
    """
    logged = trainer.callback_metrics
    names = [name for name in (TRAIN_LOSS, BALANCE_LOSS, GRADIENT_NORM) if name in logged]
    record(trainer, {name: float(logged[name]) for name in names}, trainer.global_step - 1)


def resumable_checkpoint(folder: Path, listener: ProgressListener = ignore_progress) -> Path | None:
    """The newest checkpoint whose contents match its checksum, or None.

    A damaged one is passed over with a warning; the run then resumes from the one before.
    """
    for path in _newest_first(folder):
        recorded = _digest_path(path)
        if recorded.exists() and recorded.read_bytes().strip() == file_digest(path).encode():
            return path
        warn(f"checkpoint {path} is damaged or incomplete: trying the one before it", listener)
    return None


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was saved after."""
    return int(checkpoint.stem.removeprefix("step-"))


def _newest_first(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("*") if _NAME.fullmatch(p.name)), reverse=True)


def _digest_path(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".sha256")
