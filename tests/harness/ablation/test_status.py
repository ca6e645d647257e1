"""States from files as launcher, job and trial leave them, and from listings of the queue."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.ablation.status import StateReader, state_of
from harness.cluster.slurm.queue import (
    JobRecord,
    QueuedJob,
    TaskOutcome,
    parse_queue,
    write_outcome,
    write_record,
)
from harness.processes.lock import LOCK_FILE, is_locked
from harness.processes.status import STATUS_FILE
from tests.support.processes.lock_holder import held_lock
from tests.support.stand_ins.finished import FINISHED

RECORD = JobRecord("5_0", "now", 100.0)


@pytest.fixture
def result(tmp_path: Path) -> Path:
    return tmp_path / "result.json"


def queue(state: str, reason: str = "None") -> dict[str, QueuedJob]:
    return parse_queue(f"5_0|harness-now|{state}|9:59|{reason}\n")


def said(result: Path, state: str, reason: str = "", requeues: int = 0) -> None:
    outcome = TaskOutcome("5_0", "now", "running", requeues, 110.0, reason)
    write_outcome(result, replace(outcome, state=state))  # type: ignore[arg-type]


def status(result: Path, state: str, updated: float, host: str | None = None) -> None:
    fields = {
        "state": state,
        "host": host or socket.gethostname(),
        "pid": os.getpid(),
        "updated": updated,
        "stage": "train",
        "done": 40,
        "total": 600,
        "reason": "the reason" if state != "running" else "",
    }
    (result.parent / STATUS_FILE).write_text(json.dumps(fields))


def test_never_begun(result: Path) -> None:
    assert state_of(result, None).phase == "waiting"


def test_a_result_is_the_end_whatever_else_is_there(result: Path) -> None:
    result.write_text(FINISHED)
    write_record(result, RECORD)
    said(result, "running")
    assert state_of(result, queue("COMPLETING")).phase == "done"


@pytest.mark.parametrize(
    ("listed", "outcome", "requeues", "phase", "reason"),
    [
        ("PENDING", None, 0, "queued", "Resources"),
        ("PENDING", "requeued", 2, "requeued", "Resources"),
        ("RUNNING", "running", 1, "running", "9:59 of the job's time left"),
        ("COMPLETING", "requeued", 1, "requeued", "said"),
        ("COMPLETING", "failed", 0, "failed", "said"),
        ("FAILED", "failed", 0, "failed", "said"),
        ("TIMEOUT", "running", 0, "failed", "its time was over before it could save"),
        ("OUT_OF_MEMORY", "running", 0, "failed", "memory ran out"),
        ("FAILED", None, 0, "failed", "ended without a word"),
        ("CANCELLED", "stopped", 0, "stopped", "cancelled"),
        ("CANCELLED", None, 0, "stopped", "cancelled"),
        ("COMPLETED", "stopped", 0, "stopped", "said"),
    ],
)
def test_submitted_trials(
    result: Path, listed: str, outcome: str | None, requeues: int, phase: str, reason: str
) -> None:
    write_record(result, RECORD)
    if outcome is not None:
        said(result, outcome, "said" if outcome != "running" else "", requeues)
    state = state_of(result, queue(listed, "Resources"))
    assert state.phase == phase
    assert reason in state.reason
    assert state.requeues == requeues
    assert state.job == "5_0"


def test_a_job_that_slurm_has_forgotten_failed(result: Path) -> None:
    write_record(result, RECORD)
    said(result, "running")
    assert state_of(result, {}).phase == "failed"


def test_a_cancelled_job_is_not_to_be_retried(result: Path) -> None:
    write_record(result, replace(RECORD, cancelled=True))
    said(result, "failed", "cancelled")
    state = state_of(result, queue("CANCELLED"))  # type: ignore[arg-type]
    assert (state.phase, state.reason) == ("stopped", "cancelled")


@pytest.mark.parametrize(
    ("outcome", "phase"), [(None, "queued"), ("running", "running"), ("requeued", "requeued")]
)
def test_where_slurm_is_silent_the_files_speak(
    result: Path, outcome: str | None, phase: str
) -> None:
    write_record(result, RECORD)
    if outcome is not None:
        said(result, outcome)
    assert state_of(result, None).phase == phase


@pytest.mark.parametrize(
    ("state", "phase", "reason"),
    [
        ("failed", "failed", "the reason"),
        ("stopped", "stopped", "the reason"),
        ("running", "stopped", "its process ended without a word"),
    ],
)
def test_trials_without_a_job(result: Path, state: str, phase: str, reason: str) -> None:
    status(result, state, time.time())
    found = state_of(result, None)
    assert (found.phase, found.reason) == (phase, reason)
    assert found.status is not None
    assert found.status.done == 40


def test_a_trial_of_another_host_runs_while_it_is_heard_of(result: Path) -> None:
    status(result, "running", time.time(), host="elsewhere")
    assert state_of(result, None).phase == "running"
    status(result, "running", time.time() - 3600, host="elsewhere")
    assert state_of(result, None).phase == "stopped"


def test_a_later_run_without_slurm_says_how_it_ended(result: Path) -> None:
    write_record(result, RECORD)
    said(result, "failed", "long ago")
    status(result, "stopped", 200.0)
    assert state_of(result, {}).reason == "the reason"


def test_a_trial_whose_lock_is_held_runs(result: Path) -> None:
    assert not is_locked(result.parent)
    with held_lock(result.parent):
        assert is_locked(result.parent)
        assert state_of(result, None).phase == "running"
    assert (result.parent / LOCK_FILE).exists()
    assert not is_locked(result.parent)
    assert state_of(result, None).phase == "waiting"


def test_slurm_is_not_asked_where_no_job_was_submitted(
    result: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    notices: list[str] = []
    reader = StateReader(notices.append)
    assert [state.phase for state in reader.read([result])] == ["waiting"]
    assert notices == []
    write_record(result, RECORD)
    assert [state.phase for state in reader.read([result])] == ["queued"]
    assert [state.phase for state in reader.read([result])] == ["queued"]
    assert len(notices) == 1
    assert "not part of the cluster" in notices[0]
