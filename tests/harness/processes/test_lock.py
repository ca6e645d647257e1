from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from harness.processes.lock import trial_lock
from harness.processes.signals import StopRequest
from models.errors import Preempted, UserError
from tests.support.processes.lock_holder import held_lock, start_holder


def test_the_second_process_waits_and_is_told_once_who_holds_the_lock(tmp_path: Path) -> None:
    folder = tmp_path / "digits" / "sana" / "seed0"
    holder = start_holder(folder, seconds=1.5)
    told: list[str] = []
    with trial_lock(folder, told.append):
        entered = time.monotonic()
    freed = float(holder.communicate(timeout=10)[0].split()[1])
    assert entered >= freed
    assert len(told) == 1
    assert f"process {holder.pid} on {socket.gethostname()}" in told[0]
    assert str(folder) in told[0]


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    holder = start_holder(tmp_path)
    holder.kill()
    holder.communicate()
    told: list[str] = []
    with trial_lock(tmp_path, told.append):
        pass
    # Nobody waited, so nobody was told for whom.
    assert told == []


def test_a_waiting_process_goes_on_when_the_holder_is_killed(tmp_path: Path) -> None:
    holder = start_holder(tmp_path)
    told: list[str] = []

    def kill_when_told(text: str) -> None:
        told.append(text)
        threading.Timer(0.5, holder.kill).start()

    # The holder would have kept the lock for hours.
    with trial_lock(tmp_path, kill_when_told):
        holder.communicate()
    assert holder.returncode == -signal.SIGKILL
    assert len(told) == 1


def test_a_wait_for_the_lock_ends_when_a_stop_is_requested(tmp_path: Path) -> None:
    stop = StopRequest()
    threading.Timer(0.3, stop.request, ["SIGINT"]).start()
    with held_lock(tmp_path) as holder:
        with (
            pytest.raises(Preempted, match="stopped by SIGINT while it waited"),
            trial_lock(tmp_path, print, stop),
        ):
            pass
        assert holder.poll() is None


def test_a_free_lock_is_taken_without_a_word_and_an_error_frees_it(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(RuntimeError, match="inside"), trial_lock(tmp_path, told.append):
        raise RuntimeError("inside")
    with trial_lock(tmp_path, told.append):
        assert str(os.getpid()) in (tmp_path / ".lock.holder.json").read_text()
    assert told == []
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as Lustre without the mount option `flock`; there is none here to try it on."""

    def no_flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_flock)
    with (
        pytest.raises(UserError, match=r"has no locks \(flock\).*--runs-dir"),
        trial_lock(tmp_path / "trial", print),
    ):
        pass
