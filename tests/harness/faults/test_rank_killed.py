"""SIGKILL of one of the processes that train a trial together."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psutil
import pytest

from harness.processes.jobs import RankFailedError
from harness.processes.progress import Progress, ignore_progress
from harness.processes.signals import StopRequest
from harness.processes.status import read_status
from harness.trial.run import run_trial_job
from harness.trial.spec import TrialSpec
from harness.vocabulary import names
from tests.support.processes.killed_trials import STEPS, Place, read_journal, recorded_metrics


def ranks() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "harness.processes.worker" in child.cmdline()]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_trial_says_which_process_was_killed_and_goes_on_as_if_none_had_been(
    new_place: Callable[..., Place], undisturbed: Place
) -> None:
    place = new_place()
    spec = replace(TrialSpec(**place.task()["spec"]), processes=2, threads=2)
    payload: dict[str, Any] = {"job": "trial", "spec": vars(spec)}
    killed_at: list[float] = []

    def kill_the_second(progress: Progress) -> None:
        if progress.stage == "train" and progress.done >= 6 and not killed_at:
            _, second = sorted(ranks(), key=lambda child: child.create_time())
            second.kill()
            killed_at.append(time.monotonic())

    expected = "process 1 of 2 ended: killed by signal 9"
    with pytest.raises(RankFailedError, match=expected):
        run_trial_job(payload, kill_the_second, StopRequest())
    assert killed_at
    assert not ranks()
    assert expected in json.dumps(read_journal(place.trial)[-1])
    status = read_status(place.trial)
    assert status is not None
    assert status.state == "failed"
    assert expected in status.reason

    result = run_trial_job(payload, ignore_progress, StopRequest())
    assert result["training"]["resumed_from_step"] in (4, 8)
    assert result["tags"][names.TAG_PROCESSES] == "2"
    reference = recorded_metrics(undisturbed.trial)
    found = recorded_metrics(place.trial)
    assert found.keys() == reference.keys()
    # Each of two processes holds half of a batch.
    memory = (names.TRAINING_MEMORY, STEPS)
    assert found.pop(memory) < reference.pop(memory)
    for key, value in reference.items():
        assert found[key] == pytest.approx(value, rel=1e-3, abs=1e-4), key
