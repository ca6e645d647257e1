"""What the pool's workers run in the tests."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from harness.processes.progress import Progress, ProgressListener
from models.errors import UserError

Payload = dict[str, Any]


def tell_pid(payload: Payload, report: ProgressListener) -> int:
    return os.getpid()


def echo(payload: Payload, report: ProgressListener) -> Payload:
    return payload


def tell_surroundings(payload: Payload, report: ProgressListener) -> dict[str, Any]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    return {
        "environment": {name: os.environ.get(name) for name in names},
        "modules": [name for name in sys.modules if name.startswith("__mp_")],
        "session": os.getsid(0) == os.getpid(),
    }


def overlap(payload: Payload, report: ProgressListener) -> tuple[float, float]:
    """When it ran, on the clock that all processes of the machine share."""
    began = time.monotonic()
    time.sleep(0.3)
    return began, time.monotonic()


def misbehave(payload: Payload, report: ProgressListener) -> str:
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


def say_goodbye(payload: Payload, report: ProgressListener) -> None:
    atexit.register(print, "goodbye")


def talk(payload: Payload, report: ProgressListener) -> None:
    print("from python")
    sys.stderr.write("from stderr\n")
    subprocess.run(["sh", "-c", "echo from a child process"], check=True)
    os.write(1, b"from the descriptor\n")


def count(payload: Payload, report: ProgressListener) -> None:
    for done in range(payload["total"] + 1):
        report(Progress("train", done, payload["total"], f"loss {done}"))
        time.sleep(payload["pause"])
    report(Progress("sample", 0, 1))


def report_after_the_end(payload: Payload, report: ProgressListener) -> None:
    def go_on() -> None:
        for _ in range(20):
            report(Progress(payload["stage"], 0, 1))
            time.sleep(0.02)

    threading.Thread(target=go_on, daemon=True).start()
    time.sleep(payload["seconds"])


def write_pid_and_sleep(payload: Payload, report: ProgressListener) -> None:
    """Starts a process of its own, as a data loader does, and notes whether it was unwound."""
    folder = Path(payload["folder"])
    child = subprocess.Popen(["sleep", "300"])
    report(Progress("train", 0, 1))
    (folder / f"{os.getpid()}.pid").write_text(str(child.pid))
    try:
        time.sleep(300)
    finally:
        (folder / f"{os.getpid()}.unwound").touch()


def ignore_sigterm_and_sleep(payload: Payload, report: ProgressListener) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (Path(payload["folder"]) / f"{os.getpid()}.pid").write_text(str(os.getpid()))
    time.sleep(300)
