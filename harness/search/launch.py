"""A search from its first trial to its outcome: workers take the trials that its study lacks, as
jobs of a launcher, and the call that leads writes what they found."""

from __future__ import annotations

import itertools
import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from harness.cluster import Launcher, make_launcher
from harness.config.cluster import ClusterConfig
from harness.data.datasets import data_content
from harness.machine.environment import ROOT
from harness.machine.files import check_folder, read_json
from harness.processes.jobs import Job, JobEnded, JobEvent
from harness.search import outcome
from harness.search.config import Search, SearchSpec
from harness.search.study import MEMBERS, REASON, current, prepare_study, still_running, to_begin
from harness.terminal.jobs import job_display, print_line
from harness.tracking.events import first_event
from harness.tracking.journal import end_left_run
from harness.tracking.publisher import publish_pending
from harness.tracking.runs import ParentRun
from harness.tracking.store import Store, open_store
from harness.trial.spec import check_extractor_sizes, finished_result
from harness.vocabulary import names
from models.errors import UserError

_WORKER = "harness.search.worker:search_trials"
_RESULT = "result.json"
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
        runs_dir: of all outputs.
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
    check_extractor_sizes([search.base])
    runs_dir, notice, store = runs_dir.resolve(), partial(print_line, console), open_store(ROOT)
    spec = spec_of(search, trials, storage, runs_dir, store.uri)
    label = f"search {search.name} at {search.scale}"
    launcher = make_launcher(cluster, runs_dir, label, notice, detach=detach)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = prepare_study(spec)
    notice(f"{search.name} at {search.scale}: {search.question}")
    known = study.get_trials(deepcopy=False)
    done = f"{outcome.summary(known)}; " if known else ""
    seeds = ", ".join(map(str, spec.seeds))
    left = to_begin(known, trials)
    notice(f"{done}{left} of {trials} to run, {spec.metric} over seeds {seeds}")
    jobs = _Jobs(spec, study, launcher, console, spec.path / "jobs")
    lead = FileLock(spec.path / _LEAD_LOCK)
    try:
        lead.acquire(timeout=0)
    except Timeout:
        own = jobs.folder / f"{socket.gethostname()}-{os.getpid()}"
        return _help(replace(jobs, folder=own), notice)
    with lead:
        return _lead(jobs, store, notice)


def spec_of(
    search: Search, trials: int, storage: str | None, runs_dir: Path, store_uri: str
) -> SearchSpec:
    """What workers are told.

    Raises:
        UserError: the data are missing, or are not those of a content that was written down.
    """
    content = data_content(search.base.data)
    data = search.base.data.model_copy(update={"content": content})
    bound = {
        "base": search.base.model_copy(update={"data": data}),
        "tree": {**search.tree, "data": {**search.tree["data"], "content": content}},
    }
    return SearchSpec(
        **(dict(search) | bound),
        folder=str(runs_dir / "searches" / search.scale / search.name),
        storage=storage,
        trials=trials,
        runs_dir=str(runs_dir),
        store_uri=store_uri,
    )


@dataclass(frozen=True)
class _Jobs:
    """The jobs of one search. Each takes whichever trial of the study comes next."""

    spec: SearchSpec
    study: optuna.Study
    launcher: Launcher
    console: Console
    folder: Path
    """Gets a folder for each job."""

    def run(self, record: Callable[[], None] = lambda: None) -> bool:
        """Run trials, with a call of `record` after each, until none can be begun; whether there
        were any.

        Raises:
            UserError: the workers cannot take trials.
        """
        before = self.study.get_trials(deepcopy=False)
        left = to_begin(before, self.spec.trials)
        if not left:
            return False
        plan = self.launcher.plan(left, wants_gpu=self.spec.base.train.device != "cpu")
        if plan.processes > 1:
            raise UserError(
                "a search trains each of its trials in one process: set "
                "cluster.processes_per_trial, or cluster.nodes and cluster.tasks_per_node, to 1"
            )
        if plan.side_by_side > 1:
            print_line(
                self.console,
                f"{plan.side_by_side} workers: which trial sees which results is a matter of time, "
                "so the points of a guided sampler differ from run to run",
            )
        told = {"threads": plan.threads, "side_by_side": plan.side_by_side}
        jobs = self._jobs(self.spec.model_copy(update=told), left)
        files = {job.key: job.result_file for job in jobs}
        with job_display(self.console, len(jobs)) as display:

            def on_event(event: JobEvent) -> None:
                display.event(event)
                if isinstance(event, JobEnded) and event.result.ok:
                    record()
                    if about := self._about(files[event.result.key]):
                        display.notice(about)

            results = plan.run(jobs, _WORKER, on_event)
        failed = [result for result in results if not result.ok]
        after = self.study.get_trials(deepcopy=False)
        # Workers that fail before they have a trial would be started for ever.
        if failed and [trial.state for trial in before] == [trial.state for trial in after]:
            raise UserError(
                f"the workers cannot take trials: {failed[0].reason} (log: {failed[0].log_path})"
            )
        return True

    def _jobs(self, spec: SearchSpec, count: int) -> list[Job]:
        """So many jobs, each in the first folder without a result, so that those that are left in a
        scheduler's queue are found again."""
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

    def _about(self, result: Path) -> str:
        """A line about the trial that a job ran; empty where none was left for it."""
        told = read_json(result)
        if told["number"] is None:
            return ""
        ranked = outcome.best_first(self.spec, self.study.get_trials(deepcopy=False))
        best = f"; best so far {ranked[0].value:.6g} of trial {ranked[0].number}" if ranked else ""
        return f"trial {told['number']}: {told['about']}{best}"


def _help(jobs: _Jobs, notice: Callable[[str], None]) -> bool:
    """Run trials for the call that leads."""
    notice("Another command leads this search and writes what it found; this one helps")
    deadline = time.monotonic() + _LEAD_SECONDS
    while first_event(jobs.spec.path) is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS / 10)
    while jobs.run():
        pass
    trials = jobs.study.get_trials(deepcopy=False)
    notice(f"Nothing is left to begin. {outcome.summary(trials)}")
    return bool(outcome.best_first(jobs.spec, trials))


def _lead(jobs: _Jobs, store: Store, notice: Callable[[str], None]) -> bool:
    """Run trials, wait for those that others run, and write the outcome."""
    spec, study = jobs.spec, jobs.study
    store.prepare(spec.scale, notice)
    publish_pending(Path(spec.runs_dir), store, notice)
    tracked = ParentRun(spec.path, store, notice)
    tracked.start(
        names.KIND_SEARCH,
        scale=spec.scale,
        name=spec.name,
        question=spec.question,
        params={
            **{f"space.{key}": text for key, text in spec.space.items()},
            "objective": spec.metric,
            "seeds": list(spec.seeds),
            "sampler": spec.sampler.model_dump(),
            "pruner": spec.pruner.model_dump(),
        },
    )

    def record() -> None:
        """Each trial's value, with its number as MLflow's step."""
        for trial in outcome.best_first(spec, study.get_trials(deepcopy=False)):
            tracked.journal.metrics({spec.metric: trial.value or 0.0}, trial.number)

    with tracked.ended_by_errors():
        _run_all(jobs, record, notice)
        record()
        found = _outcome(jobs, tracked, notice)
    if found:
        tracked.end("FINISHED", "finished")
    else:
        tracked.end("FAILED", "no trial completed")
    return found


def _run_all(jobs: _Jobs, record: Callable[[], None], notice: Callable[[str], None]) -> None:
    """Until the study has all its trials and none runs, here or elsewhere."""
    told = False
    while True:
        running = still_running(jobs.spec, jobs.study)
        if jobs.run(record):
            told = False
            continue
        if not running:
            return
        if not told:
            numbers = ", ".join(str(trial.number) for trial in running)
            notice(f"Waiting for trials that other workers run: {numbers}")
        told = True
        time.sleep(_POLL_SECONDS)


def _outcome(jobs: _Jobs, tracked: ParentRun, notice: Callable[[str], None]) -> bool:
    """Write, record and print what was found; whether there is anything."""
    spec, study = jobs.spec, jobs.study
    trials = study.get_trials(deepcopy=False)
    _end_runs_of_lost_workers(trials, Path(spec.runs_dir))
    files = outcome.write_outcome(spec, trials)
    files += outcome.write_figures(study, spec.metric, spec.path, notice)
    for file in files:
        tracked.artifact(file)
    notice(outcome.summary(trials))
    for line in outcome.failures(trials)[:_REASONS_SHOWN]:
        notice(line)
    found = bool(outcome.best_first(spec, trials))
    if found:
        # Imported late: pandas and scipy, which it brings, would keep the first trial waiting.
        from reports.tables.markdown import markdown_text

        table = (spec.path / outcome.TABLE_MARKDOWN).read_text(encoding="utf-8")
        tracked.note(f"**{markdown_text(spec.question)}**\n\n{table}")
        notice(table.rstrip())
    for file in files:
        notice(str(file))
    if found:
        ablation = spec.path / outcome.ablation_file(spec)
        notice(
            "With seeds that the search did not see: "
            f"cp {ablation} experiments/ablation/ && make ablation "
            f"EXP={ablation.stem} SCALE={spec.scale}"
        )
    return found


def _end_runs_of_lost_workers(trials: Sequence[FrozenTrial], runs_dir: Path) -> None:
    """Say in MLflow how trainings ended whose process had no time to say it."""
    for trial in current(trials):
        if trial.state != TrialState.FAIL or REASON in trial.user_attrs:
            continue
        for member in json.loads(trial.user_attrs.get(MEMBERS, "{}")).values():
            if finished_result(runs_dir / member) is None:
                end_left_run(runs_dir / member, "FAILED", outcome.LOST_WORKER)
