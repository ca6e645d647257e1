"""What the processes of one job run in the tests."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from typing import Any

import torch

from harness.machine.place import place_from_environment
from harness.processes.meeting import Meeting
from harness.processes.progress import Progress, ProgressListener
from harness.processes.signals import StopRequest
from models.errors import UserError

Payload = dict[str, Any]


def tell(payload: Payload, report: ProgressListener, stop: StopRequest) -> Any:
    with Meeting(place_from_environment()) as meeting:
        group = meeting.begin(cuda=False)
        report(Progress("tell", group.rank, 2))
        about = {
            "rank": group.rank,
            "size": group.size,
            "threads": torch.get_num_threads(),
            "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }
        return group.gather(about)


def one_fails(payload: Payload, report: ProgressListener, stop: StopRequest) -> None:
    with Meeting(place_from_environment()) as meeting:
        group = meeting.begin(cuda=False)
        if group.rank == 1:
            raise UserError("the second one cannot go on")
        group.gather(None)


def one_dies(payload: Payload, report: ProgressListener, stop: StopRequest) -> None:
    with Meeting(place_from_environment()) as meeting:
        group = meeting.begin(cuda=False)
        if group.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        group.gather(None)


def one_is_late(payload: Payload, report: ProgressListener, stop: StopRequest) -> None:
    with Meeting(place_from_environment(), timedelta(seconds=2)) as meeting:
        group = meeting.begin(cuda=False)
        if group.rank == 1:
            time.sleep(3600)
        group.gather(None)
