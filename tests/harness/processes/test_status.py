from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.processes.progress import Progress, ignore_progress
from harness.processes.status import STATUS_FILE, read_status, record_ending, recorded_status
from models.errors import Preempted, UserError


def test_a_trial_that_was_never_begun_has_no_status(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None


def test_the_stage_and_the_process_can_be_read_while_a_trial_runs(tmp_path: Path) -> None:
    heard: list[Progress] = []
    with recorded_status(tmp_path, heard.append) as report:
        begun = read_status(tmp_path)
        report(Progress("train", 3, 10, "loss 1"))
        status = read_status(tmp_path)
    assert begun is not None
    assert (begun.state, begun.pid) == ("running", os.getpid())
    assert status is not None
    assert status.progress == heard[0] == Progress("train", 3, 10, "loss 1")


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (UserError("the loss is\nnot finite"), "failed", "the loss is not finite"),
        (ValueError(), "failed", "ValueError"),
        (Preempted("SIGUSR1", "at step 7"), "stopped", "stopped by SIGUSR1 at step 7"),
        (KeyboardInterrupt(), "stopped", "interrupted"),
        (SystemExit(143), "stopped", "interrupted"),
    ],
)
def test_the_end_is_recorded(tmp_path: Path, error: BaseException, state: str, reason: str) -> None:
    def trial() -> None:
        with recorded_status(tmp_path, ignore_progress) as report:
            report(Progress("train", 7, 10))
            raise error

    with pytest.raises(type(error)):
        trial()
    status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.reason) == (state, reason)
    assert status.progress == Progress("train", 7, 10)


def test_what_comes_often_is_not_written_each_time(tmp_path: Path) -> None:
    writes = 0
    before = b""
    with recorded_status(tmp_path, ignore_progress) as report:
        for step in range(2000):
            report(Progress("train", step, 2000))
            content = (tmp_path / STATUS_FILE).read_bytes() if step % 10 == 0 else before
            writes += content != before
            before = content
    assert 1 <= writes < 100
    assert json.loads((tmp_path / STATUS_FILE).read_text())["state"] == "done"


def test_a_damaged_file_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / STATUS_FILE).write_text('{"state": "run')
    assert read_status(tmp_path) is None


def test_whoever_outlives_the_process_says_how_it_ended(tmp_path: Path) -> None:
    record_ending(tmp_path, "failed", "worker killed by signal 9 (Killed)")
    assert read_status(tmp_path) is None
    with recorded_status(tmp_path, ignore_progress) as report:
        report(Progress("train", 3, 9))
        record_ending(tmp_path, "failed", "worker killed by signal 9 (Killed)")
        status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.reason) == ("failed", "worker killed by signal 9 (Killed)")
    assert (status.stage, status.done, status.total) == ("train", 3, 9)
