"""Steps whose batches are left out, since their loss or gradient was not finite.

In such a step nothing is updated: weights, optimizer and EMA stay as they are. The step counts
nevertheless, so the schedule of the learning rate goes on, validation and checkpoints keep their
steps, and every other step has the images, noise and times that it would have had. The final
weights are a function of the configuration and of which steps were left out.

`skipped.json` in the trial's folder names these steps; it is written before training goes back to
the last checkpoint, so that a trial that is killed then leaves the same ones out. Checkpoints hold
the same list.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from harness.config.sections import TrainConfig
from harness.machine.files import read_json, write_json
from harness.processes.group import ProcessGroup
from harness.training.pace import record
from models.diffusion_module import DiffusionModule, NonFiniteLossError
from models.errors import UserError

METRIC = "skipped_steps"
"""How many steps were left out up to the one it is logged at."""
_FILE = "skipped.json"
_log = logging.getLogger(__name__)


def steps_left_out(folder: Path) -> frozenset[int]:
    """The steps that a trial leaves out so far."""
    path = folder / _FILE
    return frozenset(read_json(path)) if path.exists() else frozenset()


def leave_out(
    error: NonFiniteLossError,
    before: frozenset[int],
    settings: TrainConfig,
    folder: Path,
    group: ProcessGroup,
) -> frozenset[int]:
    """Add the step of an error to those that are left out, for good.

    All processes of a training call it, with the same error.

    Returns:
        The steps to leave out from now on.

    Raises:
        NonFiniteLossError: the one given; steps are not left out in this trial.
        UserError: too many have been already.
    """
    if settings.on_non_finite == "stop":
        raise error
    after = before | {error.step}
    if len(after) > settings.most_skips:
        raise UserError(
            f"the loss or its gradient was not finite at steps {shown(after)}, and no more than "
            f"train.most_skips={settings.most_skips} may be left out: lower train.learning_rate or "
            "train.gradient_clip, set train.precision=32-true, or allow more"
        ) from error
    if group.leads:
        write_json(folder / _FILE, sorted(after))
        _log.warning(
            f"the loss or its gradient was not finite at step {error.step}: training goes back to "
            f"the last checkpoint and leaves that batch out ({len(after)} of at most "
            f"{settings.most_skips})"
        )
    return after


def shown(steps: Iterable[int]) -> str:
    """The steps in order, as text."""
    return ", ".join(map(str, sorted(steps)))


@dataclass(eq=False)
class SkippedSteps(pl.Callback):
    """Tells the module which steps to leave out, the checkpoints and the logger which were."""

    steps: frozenset[int]
    """To leave out; those that the checkpoint names come to them."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, DiffusionModule)
        pl_module.skipped_steps = self.steps
        for count, step in enumerate(sorted(self.steps), start=1):
            record(trainer, {METRIC: count}, step)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": sorted(self.steps)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps |= frozenset(state_dict["steps"])
