"""What the pool's workers run in the tests."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from harness.processes.progress import Progress, ProgressListener
from harness.processes.signals import StopRequest
from models.errors import UserError

Payload = dict[str, Any]


def tell_pid(payload: Payload, report: ProgressListener, stop: StopRequest) -> int:
    return os.getpid()


def echo(payload: Payload, report: ProgressListener, stop: StopRequest) -> Payload:
    return payload


def tell_surroundings(
    payload: Payload, report: ProgressListener, stop: StopRequest
) -> dict[str, Any]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    return {
        "environment": {name: os.environ.get(name) for name in names},
        "modules": [name for name in sys.modules if name.startswith("__mp_")],
        "session": os.getsid(0) == os.getpid(),
    }


def overlap(payload: Payload, report: ProgressListener, stop: StopRequest) -> tuple[float, float]:
    """When it ran, on the clock that all processes of the machine share."""
    began = time.monotonic()
    time.sleep(0.3)
    return began, time.monotonic()


def misbehave(payload: Payload, report: ProgressListener, stop: StopRequest) -> str:
    match payload["how"]:
        case "user_error":
            raise UserError("data.path: no such folder, expected the images")
        case "exception":
            raise ValueError("the numbers\ndo not add up")
        case "signal":
            print("last words")
            os.kill(os.getpid(), payload["number"])
        case "exit":
            os._exit(3)
        case "sys_exit":
            sys.exit(1)
        case "not_json":
            return object()  # type: ignore[return-value]
    return "well"


def say_goodbye(payload: Payload, report: ProgressListener, stop: StopRequest) -> None:
    atexit.register(print, "goodbye")


def talk(payload: Payload, report: ProgressListener, stop: StopRequest) -> None:
    print("from python")
    sys.stderr.write("from stderr\n")
    subprocess.run(["sh", "-c", "echo from a child process"], check=True)
    os.write(1, b"from the descriptor\n")


def count(payload: Payload, report: ProgressListener, stop: StopRequest) -> None:
    for done in range(payload["total"] + 1):
        report(Progress("train", done, payload["total"], f"loss {done}"))
        time.sleep(payload["pause"])
    report(Progress("sample", 0, 1))


def report_after_the_end(payload: Payload, report: ProgressListener, stop: StopRequest) -> None:
    def go_on() -> None:
        for _ in range(20):
            report(Progress(payload["stage"], 0, 1))
            time.sleep(0.02)

    threading.Thread(target=go_on, daemon=True).start()
    time.sleep(payload["seconds"])


def sleep_until_stopped(payload: Payload, report: ProgressListener, stop: StopRequest) -> None:
    """Starts a process of its own, as a data loader does, and takes a second to save."""
    folder = Path(payload["folder"])
    child = subprocess.Popen(["sleep", "300"])
    report(Progress("train", 0, 1))
    (folder / f"{os.getpid()}.pid").write_text(str(child.pid))
    while not stop.requested:
        time.sleep(0.05)
    time.sleep(1)
    (folder / f"{os.getpid()}.saved").write_text(str(stop.reason))
    stop.check("asleep")


def sleep_on(payload: Payload, report: ProgressListener, stop: StopRequest) -> None:
    """Does not look whether it shall stop."""
    (Path(payload["folder"]) / f"{os.getpid()}.pid").write_text(str(os.getpid()))
    time.sleep(300)
