"""A search from its first trial to its outcome: workers take the trials that its study lacks, as
jobs of a launcher, and the call that leads writes what they found."""

from __future__ import annotations

import itertools
import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from harness.cluster import make_launcher
from harness.cluster.launcher import Detached, Launcher
from harness.config.cluster import ClusterConfig
from harness.machine.environment import ROOT
from harness.machine.files import check_folder, read_json
from harness.processes.jobs import Job, JobEnded, JobEvent, JobResult
from harness.search.config import Search
from harness.search.outcome import (
    LOST_WORKER,
    TABLE_MARKDOWN,
    ablation_file,
    best_first,
    failures,
    summary,
    write_figures,
    write_outcome,
)
from harness.search.spec import SearchSpec, spec_of
from harness.search.study import MEMBERS, REASON, current, prepare_study, still_running, to_begin
from harness.terminal.jobs import JobDisplay, job_display
from harness.tracking.events import first_event
from harness.tracking.journal import end_left_run, ending_of
from harness.tracking.provenance import collect
from harness.tracking.publisher import publish_pending
from harness.tracking.runs import SearchRun
from harness.tracking.store import open_store
from harness.trial.spec import finished_result
from models.errors import UserError
from reports.tables.markdown import markdown_text

_WORKER = "harness.search.worker:search_trials"
_RESULT = "result.json"


class SearchJobs:
    """The jobs of one search. Each takes whichever trial of the study comes next."""

    def __init__(
        self, spec: SearchSpec, launcher: Launcher, wants_gpu: bool, console: Console
    ) -> None:
        self.spec = spec
        self.launcher = launcher
        self.wants_gpu = wants_gpu
        self.console = console
        self.folder = spec.path / "jobs"
        """Gets a folder for each job."""

    def notice(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def run(self, study: optuna.Study, record: Callable[[], None]) -> bool:
        """Run trials until none can be begun; whether there were any.

        Raises:
            UserError: the workers cannot take trials.
        """
        before = study.get_trials(deepcopy=False)
        left = to_begin(before, self.spec.trials)
        if not left:
            return False
        plan = self.launcher.plan(left, wants_gpu=self.wants_gpu)
        if plan.processes > 1:
            raise UserError(
                "a search trains each of its trials in one process: set "
                "cluster.processes_per_trial, or cluster.nodes and cluster.tasks_per_node, to 1"
            )
        if plan.side_by_side > 1:
            self.notice(
                f"{plan.side_by_side} workers: which trial sees which results is a matter of time, "
                "so the points of a guided sampler differ from run to run"
            )
        told = {"threads": plan.threads, "side_by_side": plan.side_by_side}
        spec = self.spec.model_copy(update=told)
        jobs = self._jobs(spec, left)
        files = {job.key: job.result_file for job in jobs}
        with job_display(self.console, len(jobs)) as display:

            def on_event(event: JobEvent) -> None:
                display.event(event)
                if isinstance(event, JobEnded) and event.result.ok:
                    record()
                    self._tell(files[event.result.key], study, display)

            results = plan.run(jobs, _WORKER, on_event)
        self._refuse_standstill(before, study.get_trials(deepcopy=False), results)
        return True

    def _jobs(self, spec: SearchSpec, count: int) -> list[Job]:
        """A job takes whichever trial comes next. Its folder is the first without a result, so that
        jobs that are left in a scheduler's queue are found again."""
        folders = (self.folder / f"{number:04d}" for number in itertools.count(1))
        free = (folder for folder in folders if not (folder / _RESULT).exists())
        return [
            Job(
                f"{spec.name} {folder.name.lstrip('0')}",
                {"spec": spec.model_dump(mode="json"), "result": str(folder / _RESULT)},
                folder / "log.txt",
                folder / _RESULT,
            )
            for folder in itertools.islice(free, count)
        ]

    def _tell(self, result: Path, study: optuna.Study, display: JobDisplay) -> None:
        told = read_json(result)
        if told["number"] is None:
            return
        ranked = best_first(self.spec, study.get_trials(deepcopy=False))
        best = f"; best so far {ranked[0].value:.6g} of trial {ranked[0].number}" if ranked else ""
        display.notice(f"trial {told['number']}: {told['about']}{best}")

    def _refuse_standstill(
        self,
        before: Sequence[FrozenTrial],
        after: Sequence[FrozenTrial],
        results: Sequence[JobResult],
    ) -> None:
        """Workers that fail before they have a trial would be started for ever."""
        if [trial.state for trial in before] != [trial.state for trial in after]:
            return
        failed = [result for result in results if not result.ok]
        if failed:
            raise UserError(
                f"the workers cannot take trials: {failed[0].reason} (log: {failed[0].log_path})"
            )


_LEAD_LOCK = ".lead.lock"
_LEAD_SECONDS = 60.0
_POLL_SECONDS = 2.0
_REASONS_SHOWN = 3


def run_search(
    search: Search,
    cluster: ClusterConfig,
    *,
    trials: int,
    storage: str | None,
    runs_dir: Path,
    console: Console,
    detach: bool = False,
) -> bool:
    """Run what the study lacks, then say what it found.

    Several calls, on several machines, can share a study: the first one leads, which means that it
    waits for the trials of the others and writes the outcome; the others only run trials.

    Args:
        search: resolved.
        cluster: where trials run.
        trials: how many the study shall have in all.
        storage: URL of a database; None keeps the study in a file in the search's folder.
        runs_dir: where trials and the outcome are written.
        console: told what happens.
        detach: leave the trials to themselves once they are handed to a scheduler.

    Returns:
        Whether any trial has completed.

    Raises:
        UserError: the storage or the MLflow store cannot be used, or the study was begun with
            another space, objective or base.
        KeyboardInterrupt: Ctrl-C; the same call resumes the trials.
        Detached: the trials go on; the same call watches them again.
    """
    if trials < 1:
        raise UserError(f"--trials is {trials}: expected a whole number >= 1")
    check_folder(runs_dir, "--runs-dir")
    progress = _SearchInProgress(
        search, cluster, trials, storage, runs_dir.resolve(), console, detach=detach
    )
    return progress.run()


class _SearchInProgress:
    """One call of `run_search`."""

    def __init__(
        self,
        search: Search,
        cluster: ClusterConfig,
        trials: int,
        storage: str | None,
        runs_dir: Path,
        console: Console,
        *,
        detach: bool,
    ) -> None:
        self.search = search
        self.console = console
        self.store = open_store(ROOT)
        self.spec = spec_of(search, trials, storage, runs_dir, self.store.uri)
        label = f"search {search.name} at {search.scale}"
        launcher = make_launcher(cluster, runs_dir, label, self.notice, detach=detach)
        wants_gpu = search.base.train.device != "cpu"
        self.jobs = SearchJobs(self.spec, launcher, wants_gpu, console)

    def notice(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def run(self) -> bool:
        spec, search = self.spec, self.search
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = prepare_study(spec)
        self.notice(f"{search.name} at {search.scale}: {search.question}")
        known = study.get_trials(deepcopy=False)
        left = to_begin(known, spec.trials)
        done = f"{summary(known)}; " if known else ""
        self.notice(
            f"{done}{left} of {spec.trials} to run, {spec.metric} over seeds "
            f"{', '.join(map(str, spec.seeds))}"
        )
        lead = FileLock(spec.path / _LEAD_LOCK)
        try:
            lead.acquire(timeout=0)
        except Timeout:
            return self._help(study)
        with lead:
            return self._lead(study)

    def _help(self, study: optuna.Study) -> bool:
        """Run trials for the call that leads."""
        self.notice("Another command leads this search and writes what it found; this one helps")
        self.jobs.folder /= f"{socket.gethostname()}-{os.getpid()}"
        deadline = time.monotonic() + _LEAD_SECONDS
        while first_event(self.spec.path) is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS / 10)
        while self.jobs.run(study, lambda: None):
            pass
        trials = study.get_trials(deepcopy=False)
        self.notice(f"Nothing is left to begin. {summary(trials)}")
        return bool(best_first(self.spec, trials))

    def _lead(self, study: optuna.Study) -> bool:
        spec = self.spec
        self.store.prepare(spec.scale, self.notice)
        publish_pending(Path(spec.runs_dir), self.store, self.notice)
        tracked = SearchRun(spec.path, self.store, self.notice)
        tracked.start(
            scale=spec.scale,
            search=spec.name,
            question=self.search.question,
            provenance=collect(ROOT).tags(),
            params={
                **{f"space.{key}": text for key, text in spec.space.items()},
                "objective": spec.metric,
                "seeds": list(spec.seeds),
                "sampler": spec.sampler.model_dump(),
                "pruner": spec.pruner.model_dump(),
            },
        )

        def record() -> None:
            for trial in best_first(spec, study.get_trials(deepcopy=False)):
                tracked.value(spec.metric, trial.number, trial.value or 0.0)

        try:
            self._run_all(study, record)
            record()
            found = self._outcome(study, tracked)
        except Detached:
            tracked.leave()
            raise
        except BaseException as error:
            tracked.end(*ending_of(error))
            raise
        if found:
            tracked.end("FINISHED", "finished")
        else:
            tracked.end("FAILED", "no trial completed")
        return found

    def _run_all(self, study: optuna.Study, record: Callable[[], None]) -> None:
        """Until the study has all its trials and none runs, here or elsewhere."""
        waiting = False
        while True:
            running = still_running(self.spec, study)
            if self.jobs.run(study, record):
                waiting = False
            elif running:
                if not waiting:
                    numbers = ", ".join(str(trial.number) for trial in running)
                    self.notice(f"Waiting for trials that other workers run: {numbers}")
                waiting = True
                time.sleep(_POLL_SECONDS)
            else:
                return

    def _outcome(self, study: optuna.Study, tracked: SearchRun) -> bool:
        """Write, record and print what was found; whether there is anything."""
        spec = self.spec
        trials = study.get_trials(deepcopy=False)
        self._end_runs_of_lost_workers(trials)
        files = write_outcome(self.search, spec, trials)
        files += write_figures(study, spec.metric, spec.path, self.notice)
        for file in files:
            tracked.artifact(file)
        self.notice(summary(trials))
        for line in failures(trials)[:_REASONS_SHOWN]:
            self.notice(line)
        found = bool(best_first(spec, trials))
        if found:
            table = (spec.path / TABLE_MARKDOWN).read_text(encoding="utf-8")
            tracked.note(f"**{markdown_text(self.search.question)}**\n\n{table}")
            self.notice(table.rstrip())
        for file in files:
            self.notice(str(file))
        if found:
            ablation = spec.path / ablation_file(spec)
            self.notice(
                "With seeds that the search did not see: "
                f"cp {ablation} experiments/ablation/ && make ablation "
                f"EXP={ablation.stem} SCALE={spec.scale}"
            )
        return found

    def _end_runs_of_lost_workers(self, trials: Sequence[FrozenTrial]) -> None:
        """Say in MLflow how trainings ended whose process had no time to say it."""
        for trial in current(trials):
            if trial.state != TrialState.FAIL or REASON in trial.user_attrs:
                continue
            for member in json.loads(trial.user_attrs.get(MEMBERS, "{}")).values():
                folder = Path(self.spec.runs_dir) / member
                if finished_result(folder) is None:
                    end_left_run(folder, "FAILED", LOST_WORKER)
