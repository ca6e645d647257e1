"""A process that holds the lock of a trial's folder: `lock_holder.py FOLDER SECONDS`.

It prints "held", and after these seconds "freed" and the monotonic clock.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.machine.environment import ROOT
from harness.processes.lock import trial_lock

LONG = 36_000.0


def start_holder(folder: Path, seconds: float = LONG) -> subprocess.Popen[str]:
    """Returns when the other process holds the lock."""
    holder = subprocess.Popen(
        [sys.executable, "-m", "tests.support.processes.lock_holder", str(folder), str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


@contextmanager
def held_lock(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the lock until the end of the block, where it is killed."""
    holder = start_holder(folder)
    try:
        yield holder
    finally:
        holder.kill()
        holder.communicate()


@contextmanager
def flocked(path: Path) -> Iterator[None]:
    """A lock that is held until the end of the block, as by another process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    with trial_lock(Path(sys.argv[1]), print):
        print("held", flush=True)
        time.sleep(float(sys.argv[2]))
        print("freed", time.monotonic(), flush=True)


if __name__ == "__main__":
    main()
