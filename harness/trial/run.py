"""One trial, as whoever runs it calls it: by one process or several, under the trial's lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness.machine.files import full_disk_as_user_error
from harness.machine.place import place_from_environment
from harness.processes.lock import trial_lock
from harness.processes.meeting import Meeting
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from harness.processes.ranks import run_ranks
from harness.processes.signals import StopRequest
from harness.processes.status import record_ending, recorded_status, state_after
from harness.tracking.journal import end_left_run, ending_of
from harness.tracking.lightning_logger import MetricsListener
from harness.trial.reference import measure_floor
from harness.trial.spec import TrialSpec, finished_result
from harness.trial.stages import TrialStages


def run_on_ranks(spec: TrialSpec, report: ProgressListener, stop: StopRequest) -> dict[str, Any]:
    """Start the processes of a trial, which share its threads, and wait for its result.

    Where they fail, the one that wrote the trial's journal was stopped for what happened to
    another: so the reason is written down here.

    Raises:
        UserError: of the process that failed first.
        RankFailedError: a process failed otherwise.
        Preempted: a stop was requested; the next call goes on from there.
    """
    folder = Path(spec.folder)
    threads = max(1, spec.threads // spec.processes)
    payload = {"job": "trial", "spec": asdict(replace(spec, threads=threads))}
    try:
        result: dict[str, Any] = run_ranks(
            "harness.trial.run:run_trial_job",
            payload,
            processes=spec.processes,
            threads=threads,
            log_path=folder / "log.txt",
            report=report,
            stop=stop,
        )
        return result
    except Exception as error:
        end_left_run(folder, *ending_of(error))
        record_ending(folder, *state_after(error))
        raise


def run_trial_job(
    payload: Mapping[str, Any], report: ProgressListener, stop: StopRequest
) -> dict[str, Any]:
    """What a worker is called with: `{"job": "floor" or "trial", "spec": a TrialSpec}`."""
    spec = TrialSpec(**payload["spec"])
    if payload["job"] == "floor":
        with full_disk_as_user_error(f"features in {spec.references}"):
            return measure_floor(spec, stop.between_batches(report))
    if spec.processes > 1 and place_from_environment() is None:
        return run_on_ranks(spec, report, stop)
    return run_trial(spec, report, stop)


def run_trial(
    spec: TrialSpec,
    report: ProgressListener,
    stop: StopRequest | None = None,
    on_metrics: MetricsListener | None = None,
) -> dict[str, Any]:
    """Run one trial, or what is left of it.

    Where `stop` is given, it is looked at between steps and batches. `on_metrics` is told what
    training records.

    Returns:
        Its result, as in `result.json`.

    Raises:
        UserError: the loss stops being finite, data or hardware do not fit the configuration, or
            the disk is full.
        Preempted: a stop was requested; the next call goes on from there.
    """
    folder = Path(spec.folder)
    # Not by `choose_device`, which would take memory of the first GPU in every process.
    cuda = spec.config["train"]["device"] != "cpu" and torch.cuda.is_available()
    stop = stop or StopRequest()
    full_disk = partial(full_disk_as_user_error, f"the trial {folder}")

    def waiting(text: str) -> None:
        report(Progress("wait", 0, 1, text))

    with Meeting(place_from_environment(), stop=stop) as meeting:
        if not meeting.leads:
            result = meeting.begin(cuda).broadcast(finished_result(folder))
            if result is None:
                TrialStages(spec, ignore_progress, stop).follow()
            return result or {}
        with full_disk(), trial_lock(folder, waiting, stop):
            # Another command may have finished it while this one waited.
            result = meeting.begin(cuda).broadcast(finished_result(folder))
            if result is not None:
                return result
            with recorded_status(folder, report) as recorded, full_disk():
                return TrialStages(spec, recorded, stop).lead(on_metrics)
