"""At most one process runs a trial, over all pools that share the folder."""

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

from harness.machine.files import DamagedFileError, read_json, write_json
from harness.processes.signals import StopRequest
from models.errors import UserError

LOCK_FILE = ".lock"
HOLDER_FILE = ".lock.holder.json"
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class _Holder:
    pid: int
    host: str


@contextmanager
def trial_lock(
    folder: Path, on_wait: Callable[[str], None], stop: StopRequest | None = None
) -> Iterator[None]:
    """Holds the trial's folder, which is made where missing, for the length of the context.

    Where another process holds it, `on_wait` is told once, with that process's id and host, and
    the call waits as long as it takes, or until `stop` is requested. Whoever waited should look
    whether the trial is done now. The kernel frees the lock (`flock`) when the holder dies, however
    it dies; a process that the holder forked keeps it until that ends as well.

    Raises:
        UserError: the file system has no such locks.
        Preempted: a stop was requested while the call waited.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Its own kind of lock for file systems without `flock` would outlive a holder that is killed.
    lock = FileLock(folder / LOCK_FILE, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait(f"waiting for {describe_holder(folder)}, which runs this trial ({folder})")
        waiting = stop or StopRequest()
        wait_for(lock, lambda: waiting.check("while it waited for the trial's lock"))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        raise UserError(
            f"the file system of {folder} has no locks (flock), which keep two commands from "
            "running one trial: mount it with them (Lustre: the option flock), or choose another "
            "--runs-dir"
        ) from error
    try:
        _write_holder(folder)
        yield
    finally:
        (folder / HOLDER_FILE).unlink(missing_ok=True)
        lock.release()


def wait_for(lock: FileLock, look: Callable[[], None]) -> None:
    """Acquire a lock, however long another process holds it.

    Args:
        lock: not held by this process.
        look: called now and then while the call waits; what it raises ends the wait.
    """
    while True:
        try:
            lock.acquire(timeout=POLL_SECONDS, poll_interval=POLL_SECONDS / 5)
        except Timeout:
            look()
        else:
            return


def is_locked(folder: Path) -> bool:
    """Whether a process runs the trial now, as far as the file system tells; takes no part in it.

    The shared lock that this tries for an instant makes a trial that starts just then try again.
    """
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def describe_holder(folder: Path) -> str:
    """Which process runs the trial, for messages."""
    try:
        holder = read_json(folder / HOLDER_FILE, _Holder)
        return f"process {holder.pid} on {holder.host}"
    except (OSError, DamagedFileError):
        return "another process"


def _write_holder(folder: Path) -> None:
    # Beside the lock file, not in it: some versions of filelock empty the lock file on each try.
    write_json(folder / HOLDER_FILE, _Holder(os.getpid(), socket.gethostname()))
