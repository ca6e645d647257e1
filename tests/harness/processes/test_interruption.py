"""A pool whose parent is interrupted, terminated or killed leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from harness.machine.environment import ROOT

HERE = ROOT / "tests/support/processes"
Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the parent and returns when both of its workers are in the middle of a job."""
    started: list[subprocess.Popen[str]] = []

    def start(function: str) -> subprocess.Popen[str]:
        parent = subprocess.Popen(
            [sys.executable, str(HERE / "pool_parent.py"), str(tmp_path), function],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A test run in the background of a script ignores Ctrl-C, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(parent)
        wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        return parent

    yield start
    for parent in started:
        parent.kill()
        parent.communicate()


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [
        process
        for process in processes
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]


def descendants(parent: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(parent.pid).children(recursive=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_unwinds_the_jobs_and_leaves_no_process(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    parent = start("write_pid_and_sleep")
    family = descendants(parent)
    assert len(family) == 4
    parent.send_signal(number)
    output, _ = parent.communicate(timeout=20)
    assert parent.returncode == 130
    assert "JobsInterrupted(keys=('job0', 'job1'))" in output
    assert len(list(tmp_path.glob("*.unwound"))) == 2
    assert alive(family) == []


def test_a_worker_that_will_not_end_is_killed_after_the_grace(start: Start) -> None:
    parent = start("ignore_sigterm_and_sleep")
    family = descendants(parent)
    parent.send_signal(signal.SIGINT)
    began = time.monotonic()
    parent.communicate(timeout=20)
    assert 4 < time.monotonic() - began < 10
    assert parent.returncode == 130
    assert alive(family) == []


def test_a_second_ctrl_c_kills_at_once(start: Start) -> None:
    parent = start("ignore_sigterm_and_sleep")
    family = descendants(parent)
    began = time.monotonic()
    parent.send_signal(signal.SIGINT)
    time.sleep(0.5)
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=20)
    assert time.monotonic() - began < 3
    assert parent.returncode == 130
    assert alive(family) == []


@pytest.mark.parametrize("function", ["write_pid_and_sleep", "ignore_sigterm_and_sleep"])
def test_workers_end_when_the_parent_is_killed(start: Start, function: str) -> None:
    parent = start(function)
    family = descendants(parent)
    parent.kill()
    wait_until(lambda: not alive(family), seconds=8)


def test_the_main_module_of_the_parent_is_not_imported_again(start: Start, tmp_path: Path) -> None:
    parent = start("write_pid_and_sleep")
    assert (tmp_path / "imports").read_text().split() == [str(parent.pid)]
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=20)
