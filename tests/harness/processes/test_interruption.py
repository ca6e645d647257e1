"""A pool whose parent is interrupted, terminated or killed saves and leaves no process behind."""

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
            start_new_session=True,
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


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_lets_the_jobs_save_and_leaves_no_process(
    start: Start, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    parent = start("sleep_until_stopped")
    family = descendants(parent)
    assert len(family) == 4
    parent.send_signal(number)
    output, _ = parent.communicate(timeout=20)
    assert parent.returncode == code
    assert "JobsInterrupted(keys=('job0', 'job1'))" in output
    assert [path.read_text() for path in tmp_path.glob("*.saved")] == [number.name] * 2
    assert output.count("stopped='asleep'") == 2
    assert "job2" not in output
    assert alive(family) == []


def test_ctrl_c_in_a_terminal_which_all_processes_of_the_group_see_counts_once(
    start: Start, tmp_path: Path
) -> None:
    parent = start("sleep_until_stopped")
    family = descendants(parent)
    # The terminal's own, and once more from a program between the shell and this one.
    os.killpg(parent.pid, signal.SIGINT)
    time.sleep(0.1)
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=20)
    assert parent.returncode == 130
    assert len(list(tmp_path.glob("*.saved"))) == 2
    assert alive(family) == []


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_second_signal_ends_jobs_that_do_not_look_at_once(
    start: Start, number: signal.Signals, code: int
) -> None:
    parent = start("sleep_on")
    family = descendants(parent)
    parent.send_signal(number)
    time.sleep(1)
    assert parent.poll() is None
    parent.send_signal(number)
    # The jobs would sleep for minutes.
    parent.communicate(timeout=20)
    assert parent.returncode == code
    assert alive(family) == []


@pytest.mark.parametrize("function", ["sleep_until_stopped", "sleep_on"])
def test_workers_end_when_the_parent_is_killed(start: Start, tmp_path: Path, function: str) -> None:
    parent = start(function)
    family = descendants(parent)
    parent.kill()
    wait_until(lambda: not alive(family), seconds=8)
    saved = list(tmp_path.glob("*.saved"))
    assert len(saved) == (2 if function == "sleep_until_stopped" else 0)


def test_the_main_module_of_the_parent_is_not_imported_again(start: Start, tmp_path: Path) -> None:
    parent = start("sleep_until_stopped")
    assert (tmp_path / "imports").read_text().split() == [str(parent.pid)]
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=20)
