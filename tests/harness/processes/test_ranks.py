"""Processes that do a job together: real ones, over gloo. Of one that is killed while it trains,
see tests/harness/faults/test_rank_killed.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.processes.jobs import RankFailedError
from harness.processes.progress import Progress
from harness.processes.ranks import run_ranks
from harness.processes.signals import StopRequest
from models.errors import UserError


def run(function: str, folder: Path, heard: list[Progress] | None = None) -> Any:
    others = psutil.Process().children()
    try:
        return run_ranks(
            f"tests.support.ranks.targets:{function}",
            {},
            processes=2,
            threads=3,
            log_path=folder / "log.txt",
            report=(heard if heard is not None else []).append,
            stop=StopRequest(),
        )
    finally:
        assert psutil.Process().children() == others


def test_processes_share_threads_and_gpus_and_the_leading_one_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    heard: list[Progress] = []
    assert run("tell", tmp_path, heard) == [
        {"rank": 0, "size": 2, "threads": 3, "gpu": "GPU-a"},
        {"rank": 1, "size": 2, "threads": 3, "gpu": "GPU-b"},
    ]
    assert heard == [Progress("tell", 0, 2)]
    assert (tmp_path / "log-rank1.txt").exists()


def test_a_killed_process_ends_the_others_and_is_named(tmp_path: Path) -> None:
    with pytest.raises(RankFailedError, match="^process 1 of 2 ended: killed by signal 9"):
        run("one_dies", tmp_path)


@pytest.mark.slow
def test_what_one_process_cannot_do_is_what_the_job_says(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^the second one cannot go on$"):
        run("one_fails", tmp_path)


@pytest.mark.slow
def test_a_process_that_does_not_come_is_waited_for_until_the_time_is_over(tmp_path: Path) -> None:
    expected = "process 0 of 2 lost touch with the others.* or took longer than 0:00:02"
    with pytest.raises(UserError, match=expected):
        run("one_is_late", tmp_path)
