"""Handing out the trials that a study lacks, as jobs of a launcher."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial
from rich.console import Console

from harness.cluster.launcher import Launcher
from harness.processes.jobs import Job, JobEnded, JobEvent, JobResult
from harness.search.outcome import best_first
from harness.search.spec import SearchOrder
from harness.search.study import to_begin
from harness.terminal.jobs import JobDisplay
from models.errors import UserError

_WORKER = "harness.search.worker:run_job"
_RESULT = "result.json"


class SearchJobs:
    """The jobs of one search. Each takes whichever trial of the study comes next."""

    def __init__(
        self, order: SearchOrder, launcher: Launcher, wants_gpu: bool, console: Console
    ) -> None:
        self.order = order
        self.launcher = launcher
        self.wants_gpu = wants_gpu
        self.console = console
        self.folder = order.path / "jobs"
        """Gets a folder for each job."""

    def notice(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def run(self, study: optuna.Study, record: Callable[[], None]) -> bool:
        """Run trials until none can be begun; whether there were any.

        Raises:
            UserError: the workers cannot take trials.
        """
        before = study.get_trials(deepcopy=False)
        left = to_begin(before, self.order.trials)
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
        order = replace(self.order, threads=plan.threads, side_by_side=plan.side_by_side)
        jobs = self._jobs(order, left)
        files = {job.key: job.result_file for job in jobs}
        with JobDisplay(self.console, len(jobs)) as display:

            def on_event(event: JobEvent) -> None:
                display.event(event)
                if isinstance(event, JobEnded) and event.result.ok:
                    record()
                    self._tell(files[event.result.key], study, display)

            results = plan.run(jobs, _WORKER, on_event)
        self._refuse_standstill(before, study.get_trials(deepcopy=False), results)
        return True

    def _jobs(self, order: SearchOrder, count: int) -> list[Job]:
        """A job takes whichever trial comes next. Its folder is the first without a result, so that
        jobs that are left in a scheduler's queue are found again."""
        folders = (self.folder / f"{number:04d}" for number in itertools.count(1))
        free = (folder for folder in folders if not (folder / _RESULT).exists())
        return [
            Job(
                f"{order.name} {folder.name.lstrip('0')}",
                {"order": asdict(order), "result": str(folder / _RESULT)},
                folder / "log.txt",
                folder / _RESULT,
            )
            for folder in itertools.islice(free, count)
        ]

    def _tell(self, result: Path, study: optuna.Study, display: JobDisplay) -> None:
        told = json.loads(result.read_text(encoding="utf-8"))
        if told["number"] is None:
            return
        ranked = best_first(self.order, study.get_trials(deepcopy=False))
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
