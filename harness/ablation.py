"""An ablation from its trials to its report: the one file that sees all stages in order."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.cluster.display import JobDisplay
from harness.cluster.jobs import Job, JobResult
from harness.cluster.local import resolve_workers, run_jobs, visible_gpus
from harness.config.expansion import Ablation, Trial
from harness.config.schema import ClusterConfig
from harness.config.serialisation import to_plain
from harness.data.content import bind_content
from harness.paths import ROOT
from harness.tracking.ablation_run import AblationMember, AblationRun, ablation_folder
from harness.tracking.events import first_event
from harness.tracking.journal import Journal, ending_of
from harness.tracking.pending import publish_pending, wait_published
from harness.tracking.provenance import collect
from harness.tracking.store import open_store
from harness.trial_order import TrialOrder, finished_result, floor_file
from models.errors import UserError
from reports.report import TABLE_MARKDOWN, Report, write_report

_WORKER = "harness.trial:run_job"
_LOG = "log.txt"
_FLOOR = "real against real"


def run_ablation(
    ablation: Ablation, cluster: ClusterConfig, runs_dir: Path, console: Console
) -> tuple[JobResult, ...]:
    """Run what is not finished, then compare.

    Args:
        ablation: with its trials resolved.
        cluster: where trials run.
        runs_dir: where trials and reports are written.
        console: told what happens.

    Returns:
        The trials that failed.

    Raises:
        UserError: the MLflow store cannot be used, or no trial has finished.
        KeyboardInterrupt: Ctrl-C; the same call resumes the trials.
    """
    bound = bind_content(ablation)
    return _AblationInProgress(bound, cluster, runs_dir.resolve(), console).run()


def rebuild_report(ablation: str, scale: str, runs_dir: Path, console: Console) -> None:
    """Make the tables and figures again from MLflow alone.

    Raises:
        UserError: MLflow has no run of this ablation at this scale.
    """
    store = open_store(ROOT)

    def notice(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    publish_pending(runs_dir, store, notice)
    folder = report_folder(runs_dir, scale, ablation)
    _show(write_report(store.uri, ablation, scale, folder), console)


def report_folder(runs_dir: Path, scale: str, ablation: str) -> Path:
    """Where an ablation's tables and figures are written."""
    return runs_dir / "reports" / scale / ablation


def trial_folder(runs_dir: Path, trial: Trial) -> Path:
    """A trial's folder: the one with its hash where it exists, whatever variant's name it bears.

    A trial belongs to no ablation, and two ablations may call the same configuration differently.
    """
    own = runs_dir / trial.folder
    if own.exists():
        return own
    return next((runs_dir / trial.scale).glob(f"*/{own.name}"), own)


class _AblationInProgress:
    """One call of `run_ablation`."""

    def __init__(
        self, ablation: Ablation, cluster: ClusterConfig, runs_dir: Path, console: Console
    ) -> None:
        self.ablation = ablation
        self.cluster = cluster
        self.runs_dir = runs_dir
        self.console = console
        self.references = runs_dir / "references"
        self.store = open_store(ROOT)
        self.folders = {trial.hash: trial_folder(runs_dir, trial) for trial in ablation.trials}
        self.reused = {
            trial.hash
            for trial in ablation.trials
            if finished_result(self.folders[trial.hash]) is not None
        }

    def run(self) -> tuple[JobResult, ...]:
        ablation = self.ablation
        self.notice(f"{ablation.name} at {ablation.scale}: {ablation.question}")
        self._say_what_is_reused()
        self.store.prepare(ablation.scale, self.notice)
        publish_pending(self.runs_dir, self.store, self.notice)
        hashes = [trial.hash for trial in ablation.trials]
        folder = ablation_folder(self.runs_dir, ablation.scale, ablation.name, hashes)
        tracked = AblationRun(folder, self.store, self.notice)
        tracked.start(
            scale=ablation.scale,
            ablation=ablation.name,
            question=ablation.question,
            baseline=ablation.baseline,
            provenance=collect(ROOT).tags(),
        )
        try:
            failed = self._run_trials(tracked)
            self._report(tracked)
        except BaseException as error:
            tracked.end(*ending_of(error))
            raise
        tracked.end(
            "FAILED" if failed else "FINISHED",
            f"{len(failed)} trials failed" if failed else "finished",
        )
        return failed

    def notice(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def _say_what_is_reused(self) -> None:
        seeds = defaultdict(list)
        for trial in self.ablation.trials:
            if trial.hash in self.reused:
                seeds[trial.variant].append(str(trial.seed))
        count, total = len(self.reused), len(self.ablation.trials)
        if not seeds:
            self.notice(f"{total} trials to run")
            return
        which = "; ".join(f"{variant} seed {', '.join(ks)}" for variant, ks in seeds.items())
        self.notice(f"{count} of {total} trials are finished already and are reused: {which}")

    def _run_trials(self, tracked: AblationRun) -> tuple[JobResult, ...]:
        """Run what is left, and record which trials the ablation compares."""
        left = [trial for trial in self.ablation.trials if trial.hash not in self.reused]
        floor_known = floor_file(self.ablation.trials[0].config, self.references)
        measure_floor = not floor_known.exists()
        results: list[JobResult] = []
        if left or measure_floor:
            wants_gpu = any(trial.config.train.device != "cpu" for trial in self.ablation.trials)
            gpus = visible_gpus() if wants_gpu else ()
            workers, threads = resolve_workers(
                self.cluster, len(left) + measure_floor, gpus=gpus, on_warning=self.notice
            )
            jobs = [self._job("trial", trial, tracked, threads, workers) for trial in left]
            if measure_floor:
                first = self.ablation.trials[0]
                jobs.insert(0, self._job("floor", first, tracked, threads, workers))
            with JobDisplay(self.console, len(jobs)) as display:
                results = run_jobs(
                    jobs,
                    _WORKER,
                    workers=workers,
                    threads_per_worker=threads,
                    on_event=display.event,
                    gpus=gpus,
                )
        floor: dict[str, Any] = {}
        if floor_known.exists():
            floor = json.loads(floor_known.read_text(encoding="utf-8"))
        tracked.trials(self._members(), floor.get("metrics", {}), floor.get("identity", {}))
        failed = tuple(result for result in results if not result.ok)
        self._end_runs_of_killed_workers(failed)
        return failed

    def _end_runs_of_killed_workers(self, failed: tuple[JobResult, ...]) -> None:
        """Say in MLflow how a trial ended whose process had no time to say it."""
        reasons = {
            result.key: result.reason or "" for result in failed if not result.caused_by_user
        }
        for trial in self.ablation.trials:
            folder = self.folders[trial.hash]
            if _key(trial) in reasons and first_event(folder) is not None:
                journal = Journal(folder)
                journal.end("FAILED", reasons[_key(trial)])
                journal.close()

    def _job(
        self, kind: str, trial: Trial, tracked: AblationRun, threads: int, workers: int
    ) -> Job:
        folder = self.folders[trial.hash]
        order = TrialOrder(
            config=to_plain(trial.config),
            variant=trial.variant,
            scale=trial.scale,
            hash=trial.hash,
            folder=str(folder),
            references=str(self.references),
            parent=str(tracked.folder),
            store_uri=self.store.uri,
            root=str(ROOT),
            threads=threads,
            side_by_side=workers,
        )
        key, log = _key(trial), folder / _LOG
        if kind == "floor":
            key, log = _FLOOR, self.references / _LOG
        return Job(key, {"job": kind, "order": asdict(order)}, log)

    def _members(self) -> list[AblationMember]:
        """In the order of the table: variant by variant."""
        return [
            AblationMember(
                trial.variant,
                trial.seed,
                trial.hash,
                self.folders[trial.hash],
                trial.hash in self.reused,
            )
            for variant in self.ablation.variants
            for trial in self.ablation.trials
            if trial.variant == variant
        ]

    def _report(self, tracked: AblationRun) -> None:
        """Write, record and print the report, from what MLflow holds."""
        ablation = self.ablation
        again = f"make report EXP={ablation.name} SCALE={ablation.scale}"
        published = wait_published(
            [*self.folders.values(), tracked.folder], self.store, self.notice
        )
        if published[tracked.folder] is None:
            self.notice(f"No report yet, since reports are made from MLflow; later: {again}")
            return
        folder = report_folder(self.runs_dir, ablation.scale, ablation.name)
        try:
            report = write_report(
                self.store.uri, ablation.name, ablation.scale, folder, tracked.run_id
            )
        except UserError as error:
            self.notice(f"{error}\nNo report yet; when that is mended: {again}")
            return
        for file in report.files:
            tracked.artifact(file)
        table = (folder / TABLE_MARKDOWN).read_text(encoding="utf-8")
        tracked.note(ablation.question, table, self._members())
        _show(report, self.console)


def _key(trial: Trial) -> str:
    return f"{trial.variant}/seed{trial.seed}"


def _show(report: Report, console: Console) -> None:
    console.print(report.console)
    for file in report.files:
        console.print(str(file), highlight=False, markup=False, soft_wrap=True)
