"""No space left, at several moments of a trial, on a small disk of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.machine.files import full_disk_as_user_error
from harness.processes.jobs import Job
from harness.processes.pool import run_jobs
from harness.training.checkpoints import resumable_checkpoint, step_of
from models.errors import UserError
from tests.support.processes.killed_trials import (
    CHECKPOINT_EVERY,
    ForkServer,
    Place,
    assert_same_trial,
)

MEBIBYTE = 2**20
DISK = 64 * MEBIBYTE


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB in memory."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave(disk: Path, room: int) -> Path:
    """Fill the disk but for `room` bytes; the file that does it."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - room)
    return filler


def checkpoint_size(place: Place) -> int:
    path = resumable_checkpoint(place.trial / "checkpoints")
    assert path is not None
    return path.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize(("checkpoints_that_fit", "saved"), [(0.4, None), (1.4, 1), (2.4, 2)])
def test_a_trial_on_a_full_disk_says_so_and_loses_nothing(
    forks: ForkServer,
    new_place: Callable[..., Place],
    undisturbed: Place,
    disk: Path,
    checkpoints_that_fit: float,
    saved: int | None,
) -> None:
    place = new_place(disk)
    task = place.task()
    room = int(checkpoints_that_fit * checkpoint_size(undisturbed)) + MEBIBYTE // 4
    filler = leave(disk, room)
    assert forks.run(task).code == 2, place.log.read_text()
    assert not list(disk.rglob(".step-*"))
    kept = resumable_checkpoint(place.trial / "checkpoints")
    assert (kept and step_of(kept)) == (saved and saved * CHECKPOINT_EVERY)
    filler.unlink()
    assert forks.run(task).code == 0, place.log.read_text()
    assert "no space is left on the disk for the trial" in place.log.read_text()
    assert "Traceback" not in place.log.read_text()
    assert_same_trial(place, undisturbed)


@pytest.mark.slow
def test_the_error_of_safetensors_is_understood(disk: Path) -> None:
    leave(disk, 2**16)
    with (
        pytest.raises(UserError, match="no space is left on the disk for the weights"),
        full_disk_as_user_error("the weights"),
    ):
        save_file({"weight": torch.zeros(100_000)}, disk / "ema.safetensors")


@pytest.mark.slow
def test_not_even_room_for_the_journal(
    forks: ForkServer, new_place: Callable[..., Place], undisturbed: Place, disk: Path
) -> None:
    place = new_place(disk)
    task = place.task()
    filler = leave(disk, 0)
    assert forks.run(task).code == 2
    filler.unlink()
    assert forks.run(task).code == 0, place.log.read_text()
    assert_same_trial(place, undisturbed)


@pytest.mark.slow
def test_a_worker_whose_log_is_on_the_full_disk_passes_the_reason_on(
    new_place: Callable[..., Place], undisturbed: Place, disk: Path
) -> None:
    place = new_place(disk)
    spec = place.task()["spec"]
    place.log.touch()
    filler = leave(disk, 2**16)
    job = Job("trial", {"job": "trial", "spec": spec}, place.log)

    def run() -> tuple[bool, str, bool]:
        (result,) = run_jobs(
            [job],
            "harness.trial.run:run_trial_job",
            workers=1,
            threads_per_worker=1,
            on_event=lambda event: None,
            gpus=(),
        )
        return result.ok, result.reason or "", result.caused_by_user

    ok, reason, caused_by_user = run()
    assert not ok
    assert caused_by_user
    assert reason.startswith("no space is left on the disk for the trial")
    filler.unlink()
    assert run() == (True, "", False)
    assert_same_trial(place, undisturbed)
