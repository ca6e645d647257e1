"""An ablation: its trials are run where they are not finished, and compared."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from harness.ablation.report import record_report
from harness.ablation.status import StateReader
from harness.cluster import make_launcher
from harness.cluster.launcher import Detached, Launcher, Plan
from harness.config.cluster import ClusterConfig
from harness.config.load import Ablation, Trial
from harness.config.serialisation import flatten, to_plain
from harness.data.datasets import bind_content
from harness.machine.environment import ROOT
from harness.machine.files import check_folder
from harness.processes.jobs import Job, JobResult
from harness.processes.status import record_ending
from harness.terminal.jobs import job_display
from harness.tracking.events import first_event
from harness.tracking.journal import Journal, end_left_run, ending_of
from harness.tracking.provenance import collect
from harness.tracking.publisher import publish_pending
from harness.tracking.runs import AblationMember, AblationRun, ablation_folder
from harness.tracking.store import open_store
from harness.training.build import check_batch
from harness.trial.spec import (
    FLOOR,
    RESULT,
    TrialSpec,
    finished_floor,
    finished_result,
    floor_file,
    trial_folder,
    trial_key,
)
from harness.vocabulary import names

_WORKER = "harness.trial.run:run_trial_job"
_LOG = "log.txt"
TRIAL_ARTIFACTS = (
    names.ARTIFACT_CONFIG,
    names.ARTIFACT_GRID,
    names.ARTIFACT_GRID_IMAGES,
    f"{names.ARTIFACT_PROBE}.csv",
    f"{names.ARTIFACT_PROBE}.png",
)
"""Files in a trial's folder that its run in MLflow holds as well."""


@dataclass(frozen=True)
class Outcome:
    """What came of an ablation."""

    failed: tuple[JobResult, ...]
    """The trials that failed."""
    reported: bool
    """Whether there is a table, if there is anything to compare; without MLflow there is none."""


def run_ablation(
    ablation: Ablation,
    cluster: ClusterConfig,
    runs_dir: Path,
    console: Console,
    *,
    detach: bool = False,
    only_failed: bool = False,
) -> Outcome:
    """Run what is not finished, then compare.

    Args:
        ablation: with its trials resolved.
        cluster: where trials run.
        runs_dir: where trials and reports are written.
        console: told what happens.
        detach: leave the trials to themselves once they are handed to a scheduler.
        only_failed: of the trials that are not finished, run those that failed.

    Raises:
        UserError: the MLflow store cannot be used, the cluster cannot give what is asked of it, or
            no trial has finished.
        KeyboardInterrupt: Ctrl-C; the same call resumes the trials.
        Detached: the trials go on; the same call watches them again.
    """
    check_folder(runs_dir, "--runs-dir")
    bound, runs_dir = bind_content(ablation), runs_dir.resolve()
    launcher = _launcher(bound, cluster, runs_dir, console, detach=detach)
    return _AblationInProgress(bound, launcher, runs_dir, console, only_failed=only_failed).run()


def print_scripts(
    ablation: Ablation, cluster: ClusterConfig, runs_dir: Path, console: Console
) -> None:
    """Print what a scheduler would be given now, and run nothing.

    Raises:
        UserError: the trials would not go to a scheduler, or the cluster cannot give what is asked.
    """
    bound, runs_dir = bind_content(ablation), runs_dir.resolve()
    launcher = _launcher(bound, cluster, runs_dir, console)
    for script in _AblationInProgress(bound, launcher, runs_dir, console).scripts():
        console.print(script, highlight=False, markup=False, soft_wrap=True)


class _AblationInProgress:
    """One call of `run_ablation`."""

    def __init__(
        self,
        ablation: Ablation,
        launcher: Launcher,
        runs_dir: Path,
        console: Console,
        *,
        only_failed: bool = False,
    ) -> None:
        self.ablation = ablation
        self.launcher = launcher
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
        self.only_failed = only_failed
        self.left = [trial for trial in ablation.trials if trial.hash not in self.reused]
        if only_failed:
            results = [self.folders[trial.hash] / RESULT for trial in self.left]
            states = StateReader(self.notice).read(results)
            self.left = [
                trial
                for trial, state in zip(self.left, states, strict=True)
                if state.phase == "failed"
            ]
        self.floor = floor_file(ablation.trials[0].config, self.references)
        self._lacks_floor = finished_floor(self.floor) is None
        hashes = [trial.hash for trial in ablation.trials]
        self.folder = ablation_folder(runs_dir, ablation.scale, ablation.name, hashes)

    def scripts(self) -> list[str]:
        plan = self._plan()
        return [] if plan is None else self.launcher.scripts(self._jobs(plan))

    def run(self) -> Outcome:
        ablation = self.ablation
        self.notice(f"{ablation.name} at {ablation.scale}: {ablation.question}")
        self._say_what_is_reused()
        plan = self._plan()
        self._remove_damaged()
        self.store.prepare(ablation.scale, self.notice)
        publish_pending(self.runs_dir, self.store, self.notice)
        tracked = AblationRun(self.folder, self.store, self.notice)
        tracked.start(
            scale=ablation.scale,
            ablation=ablation.name,
            question=ablation.question,
            baseline=ablation.baseline,
            provenance=collect(ROOT).tags(),
        )
        try:
            self._restore_lost_records()
            tracked.trials(self._members(), self.floor)
            failed = self._run_trials(tracked, plan)
            compared = self._members()
            reported = record_report(
                tracked, compared, ablation, self.runs_dir, self.store, self.console
            )
        except Detached:
            tracked.leave()
            raise
        except BaseException as error:
            tracked.end(*ending_of(error))
            raise
        tracked.end(
            "FAILED" if failed else "FINISHED",
            f"{len(failed)} trials failed" if failed else "finished",
        )
        # Where no trial failed and none has finished, `retry` has nothing to do, nor to compare.
        nothing_to_compare = self.only_failed and not self.left and not self.reused
        return Outcome(failed, reported or nothing_to_compare)

    def _restore_lost_records(self) -> None:
        """Write the journal of a finished trial again, where it was lost or its beginning damaged.

        The result has the figures of the table, but not the curves of the training.
        """
        for trial in self.ablation.trials:
            folder = self.folders[trial.hash]
            if trial.hash not in self.reused or first_event(folder) is not None:
                continue
            result = finished_result(folder)
            assert result is not None
            journal = Journal(folder)
            journal.start(
                experiment=trial.scale,
                run_name=f"{trial.variant}/seed{trial.seed}",
                tags=result["tags"],
                params=flatten(trial.config),
                parent=self.folder,
            )
            journal.metrics(result["metrics"], step=int(result["training"]["steps"]))
            for name in TRIAL_ARTIFACTS:
                if (folder / name).is_file():
                    journal.artifact(Path(name))
            journal.end("FINISHED", "finished")
            journal.close()
            self.notice(
                f"The record of {trial.variant} seed {trial.seed} was lost or damaged and is "
                f"written again from {folder / RESULT}"
            )

    def notice(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def _remove_damaged(self) -> None:
        """So that nobody takes a damaged result, which is made again, for the new one."""
        for trial in self.left:
            folder = self.folders[trial.hash]
            # Another command may have finished it since this one looked.
            if finished_result(folder) is None:
                (folder / RESULT).unlink(missing_ok=True)
        if finished_floor(self.floor) is None:
            self.floor.unlink(missing_ok=True)

    def _say_what_is_reused(self) -> None:
        if self.only_failed:
            self.notice(f"{len(self.left)} trial(s) failed and are run again")
            return
        seeds = defaultdict(list)
        for trial in self.ablation.trials:
            if trial.hash in self.reused:
                seeds[trial.variant].append(str(trial.seed))
        count, total = len(self.reused), len(self.ablation.trials)
        if not seeds:
            self.notice(f"{len(self.left)} trials to run")
            return
        which = "; ".join(f"{variant} seed {', '.join(ks)}" for variant, ks in seeds.items())
        self.notice(f"{count} of {total} trials are finished already and are reused: {which}")

    def _plan(self) -> Plan | None:
        """How to run what is left; None where nothing is."""
        count = len(self.left) + self._lacks_floor
        wants_gpu = any(trial.config.train.device != "cpu" for trial in self.ablation.trials)
        if not count:
            return None
        plan = self.launcher.plan(count, wants_gpu=wants_gpu)
        for trial in self.left:
            check_batch(trial.config.train, plan.processes)
        return plan

    def _jobs(self, plan: Plan) -> list[Job]:
        jobs = [self._job("trial", trial, plan) for trial in self.left]
        if self._lacks_floor:
            jobs.insert(0, self._job("floor", self.ablation.trials[0], plan))
        return jobs

    def _run_trials(self, tracked: AblationRun, plan: Plan | None) -> tuple[JobResult, ...]:
        """Run what is left, and record which trials the ablation compares."""
        results: list[JobResult] = []
        jobs = [] if plan is None else self._jobs(plan)
        if plan is not None and jobs:
            with job_display(self.console, len(jobs)) as display:
                results = plan.run(jobs, _WORKER, display.event)
        tracked.trials(self._members(), self.floor)
        failed = tuple(result for result in results if not result.ok)
        self._end_runs_of_killed_workers(failed)
        return failed

    def _end_runs_of_killed_workers(self, failed: tuple[JobResult, ...]) -> None:
        """Say in MLflow, and to `status`, how a trial ended whose process could not say it."""
        reasons = {
            result.key: result.reason or ""
            for result in failed
            if not result.caused_by_user and result.stopped is None
        }
        for trial in self.ablation.trials:
            if (reason := reasons.get(trial_key(trial))) is not None:
                end_left_run(self.folders[trial.hash], "FAILED", reason)
                record_ending(self.folders[trial.hash], "failed", reason)

    def _job(self, kind: str, trial: Trial, plan: Plan) -> Job:
        folder = self.folders[trial.hash]
        spec = TrialSpec(
            config=to_plain(trial.config),
            variant=trial.variant,
            scale=trial.scale,
            hash=trial.hash,
            folder=str(folder),
            references=str(self.references),
            parent=str(self.folder),
            store_uri=self.store.uri,
            root=str(ROOT),
            threads=plan.threads,
            side_by_side=plan.side_by_side,
            processes=plan.processes,
        )
        payload = {"job": kind, "spec": asdict(spec)}
        if kind == "floor":
            return Job(FLOOR, payload, self.references / _LOG, self.floor, single_process=True)
        return Job(trial_key(trial), payload, folder / _LOG, folder / RESULT)

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


def _launcher(
    ablation: Ablation,
    cluster: ClusterConfig,
    runs_dir: Path,
    console: Console,
    *,
    detach: bool = False,
) -> Launcher:
    def notice(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    label = f"{ablation.name} at {ablation.scale}"
    return make_launcher(cluster, runs_dir, label, notice, detach=detach)
