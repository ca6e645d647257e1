"""Runs each task in a fork of this process, which has imported everything: a start costs nothing.

A task is a line of JSON on standard input: {"log": file, "skew": seconds, and either "spec": a
TrialSpec, or "config": file, "folder": of a trial to be trained alone, "bad_images": whose pixels
are NaN; "hold_after": a number of reports after which it waits to be killed}. The answers are
lines: "started PID", "report" at each report of progress, "ended CODE": 0, 2 for a UserError, 1
for another exception, or minus a signal.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import torch

from harness.config.serialisation import from_yaml_file
from harness.data.datasets import load_data_set
from harness.machine.mlflow_client import configure_mlflow
from harness.processes.progress import Progress
from harness.tracking.journal import Journal
from harness.tracking.lightning_logger import JournalLogger
from harness.training.train import Training
from harness.trial.run import run_trial
from harness.trial.spec import TrialSpec
from models.errors import UserError
from tests.support.stand_ins.poisoned import Poisoned


def run(task: dict[str, Any], channel: TextIO) -> None:
    reports = itertools.count(1)

    def report(_progress: Progress) -> None:
        channel.write("report\n")
        if next(reports) == task.get("hold_after"):
            # Other threads go on.
            signal.pause()

    if skew := task.get("skew"):
        # A process cannot set the machine's clock; what is decided here is decided in Python.
        clock, clock_ns = time.time, time.time_ns
        time.time = lambda: clock() + skew
        time.time_ns = lambda: clock_ns() + skew * 10**9
    if "spec" in task:
        run_trial(TrialSpec(**task["spec"]), report)
        return
    config, folder = from_yaml_file(Path(task["config"])), Path(task["folder"])
    journal = Journal(folder)
    journal.start(experiment="smoke", run_name="train", tags={}, params={})
    data = load_data_set(config.data)
    data = replace(data, train=Poisoned(data.train, task.get("bad_images", [])))
    device = torch.device("cpu")
    Training(config, data, folder, device, "32-true", JournalLogger(journal), report).run()
    journal.close()


def run_in_child(task: dict[str, Any], channel: TextIO) -> int:
    descriptor = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    channel.write(f"started {os.getpid()}\n")
    try:
        run(task, channel)
    except UserError as error:
        with suppress(OSError):
            print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    torch.set_num_threads(1)
    configure_mlflow()
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    channel = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(run_in_child(json.loads(line), channel))
        _, status = os.waitpid(child, 0)
        channel.write(f"ended {os.waitstatus_to_exitcode(status)}\n")


if __name__ == "__main__":
    main()
