"""Waits for locks that look whether to stop, and the lock that one process runs a trial under."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from harness.machine.files import read_sound_json, write_json
from harness.processes.signals import StopRequest
from models.errors import UserError

LOCK_FILE = ".lock"
HOLDER_FILE = ".lock.holder.json"
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class _Holder:
    pid: int
    host: str


def wait_for(lock: FileLock, look: Callable[[], object]) -> None:
    """Acquire a lock, however long another process holds it: `look` is called twice a second, and
    what it raises ends the wait. The kernel frees the lock (`flock`) when its holder dies, however
    it dies; a process that the holder forked keeps it until that ends as well."""
    while True:
        try:
            lock.acquire(timeout=POLL_SECONDS, poll_interval=POLL_SECONDS / 5)
        except Timeout:
            look()
        else:
            return


@contextmanager
def held(path: Path, look: Callable[[], object]) -> Iterator[None]:
    """Holds the lock of a file for the length of the context; waits for it as `wait_for` does."""
    lock = FileLock(path)
    wait_for(lock, look)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def trial_lock(
    folder: Path, on_wait: Callable[[str], None], stop: StopRequest | None = None
) -> Iterator[None]:
    """Holds the trial's folder, which is made where missing, for the length of the context. Where
    another process holds it, `on_wait` is told which; the trial may be done after the wait.

    Raises:
        UserError: the file system has no such locks.
        Preempted: `stop` was requested while the call waited.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = False

    def look() -> None:
        nonlocal told
        if not told:
            on_wait(f"waiting for {describe_holder(folder)}, which runs this trial ({folder})")
        told = True
        if stop is not None:
            stop.check("while it waited for the trial's lock")

    # Its own kind of lock for file systems without `flock` would outlive a holder that is killed.
    lock = FileLock(folder / LOCK_FILE, fallback_to_soft=False)
    try:
        wait_for(lock, look)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        raise UserError(
            f"the file system of {folder} has no locks (flock), which keep two commands from "
            "running one trial: mount it with them (Lustre: the option flock), or choose another "
            "--runs-dir"
        ) from error
    try:
        # Not in the lock file, which some versions of filelock empty on each try.
        write_json(folder / HOLDER_FILE, _Holder(os.getpid(), socket.gethostname()))
        yield
    finally:
        (folder / HOLDER_FILE).unlink(missing_ok=True)
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process runs the trial now, as far as the file system tells. The shared lock that
    this tries for an instant makes a trial that starts just then try again."""
    try:
        with (folder / LOCK_FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return False


def describe_holder(folder: Path) -> str:
    """Which process runs the trial, for messages."""
    holder = read_sound_json(folder / HOLDER_FILE, _Holder)
    return f"process {holder.pid} on {holder.host}" if holder else "another process"
