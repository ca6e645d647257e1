"""An ablation: its trials are run where they are not finished, and compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from harness.ablation.report import record_report
from harness.ablation.status import StateReader
from harness.cluster import Launcher, Plan, make_launcher
from harness.config.cluster import ClusterConfig
from harness.config.load import Ablation, Trial
from harness.config.serialisation import flatten, to_plain
from harness.data.datasets import bind_content
from harness.machine.environment import ROOT
from harness.machine.files import check_folder
from harness.processes.jobs import Job, JobResult
from harness.processes.status import record_ending
from harness.terminal.jobs import job_display, print_line
from harness.tracking.events import first_event
from harness.tracking.journal import Journal, end_left_run
from harness.tracking.publisher import publish_pending
from harness.tracking.runs import AblationMember, ParentRun, ablation_folder, list_trials
from harness.tracking.store import open_store
from harness.training.build import check_batch
from harness.trial.spec import (
    FLOOR,
    RESULT,
    TrialSpec,
    check_extractor_sizes,
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
        ablation: resolved.
        cluster: where trials run.
        runs_dir: of all outputs.
        console: told what happens.
        detach: leave the trials to themselves once they are handed to a scheduler.
        only_failed: of the trials that are not finished, run those that failed.

    Raises:
        UserError: the MLflow store cannot be used, the cluster cannot give what is asked of it, or
            no trial has finished.
        KeyboardInterrupt: Ctrl-C; the same call resumes the trials.
        Detached: the trials go on; the same call watches them again.
    """
    notice = partial(print_line, console)
    work, launcher = _prepare(ablation, cluster, runs_dir, notice, detach=detach)
    store = open_store(ROOT)
    notice(f"{ablation.name} at {ablation.scale}: {ablation.question}")
    if only_failed:
        work = replace(work, left=_failed_before(work, notice))
        notice(f"{len(work.left)} trial(s) failed and are run again")
    else:
        notice(_what_is_reused(work))
    plan = _plan(work, launcher)
    _remove_damaged(work)

    store.prepare(ablation.scale, notice)
    publish_pending(work.runs_dir, store, notice)
    tracked = ParentRun(work.folder, store, notice)
    tracked.start(
        names.KIND_ABLATION,
        scale=ablation.scale,
        name=ablation.name,
        question=ablation.question,
        tags={names.TAG_BASELINE: ablation.baseline},
    )
    with tracked.ended_by_errors():
        for member in work.members:
            if member.reused and first_event(member.folder) is None:
                _restore_lost_record(member, work.folder, notice)
        list_trials(tracked.journal, work.members, work.floor)
        results: list[JobResult] = []
        if plan is not None:
            jobs = _jobs(work, plan, store.uri)
            with job_display(console, len(jobs)) as display:
                results = plan.run(jobs, _WORKER, display.event)
        failed = tuple(result for result in results if not result.ok)
        list_trials(tracked.journal, work.members, work.floor)
        _end_runs_of_killed_workers(failed, work.members)
        reported = record_report(tracked, work.members, ablation, work.runs_dir, store, console)
    if failed:
        tracked.end("FAILED", f"{len(failed)} trials failed")
    else:
        tracked.end("FINISHED", "finished")
    # Where no trial failed and none has finished, `retry` has nothing to do, nor to compare.
    nothing_to_compare = only_failed and not work.left and not work.finished
    return Outcome(failed, reported or nothing_to_compare)


def print_scripts(
    ablation: Ablation, cluster: ClusterConfig, runs_dir: Path, console: Console
) -> None:
    """Print what a scheduler would be given now, and run nothing.

    Raises:
        UserError: the trials would not go to a scheduler, or the cluster cannot give what is asked.
    """
    notice = partial(print_line, console)
    work, launcher = _prepare(ablation, cluster, runs_dir, notice)
    plan = _plan(work, launcher)
    jobs = [] if plan is None else _jobs(work, plan, open_store(ROOT).uri)
    for script in launcher.scripts(jobs) if jobs else ():
        notice(script)


@dataclass(frozen=True)
class _Work:
    """The trials of an ablation, bound to the very data, and what of them is left to run."""

    runs_dir: Path
    folder: Path
    """Of the ablation's own journal."""
    members: list[AblationMember]
    """All trials in the order of the table: variant by variant."""
    left: list[AblationMember]
    """Those to run, seed by seed."""
    floor: Path
    """Where real images against real ones are scored."""
    lacks_floor: bool

    @property
    def finished(self) -> list[AblationMember]:
        return [member for member in self.members if member.reused]


def _prepare(
    ablation: Ablation,
    cluster: ClusterConfig,
    runs_dir: Path,
    notice: Callable[[str], None],
    *,
    detach: bool = False,
) -> tuple[_Work, Launcher]:
    """Look at what is there already, and make what runs the rest."""
    check_folder(runs_dir, "--runs-dir")
    bound, runs_dir = bind_content(ablation), runs_dir.resolve()
    label = f"{ablation.name} at {ablation.scale}"
    launcher = make_launcher(cluster, runs_dir, label, notice, detach=detach)
    folders = [(trial, trial_folder(runs_dir, trial)) for trial in bound.trials]
    found = [AblationMember(*each, finished_result(each[1]) is not None) for each in folders]
    floor = floor_file(bound.trials[0].config, runs_dir / "references")
    hashes = [trial.hash for trial in bound.trials]
    work = _Work(
        runs_dir,
        ablation_folder(runs_dir, bound.scale, bound.name, hashes),
        members=sorted(found, key=lambda it: bound.variants.index(it.trial.variant)),
        left=[member for member in found if not member.reused],
        floor=floor,
        lacks_floor=finished_floor(floor) is None,
    )
    return work, launcher


def _failed_before(work: _Work, notice: Callable[[str], None]) -> list[AblationMember]:
    """Those of the trials left that failed. Asks SLURM, if they were jobs of its."""
    states = StateReader(notice).read([member.folder / RESULT for member in work.left])
    tried = zip(work.left, states, strict=True)
    return [member for member, state in tried if state.phase == "failed"]


def _what_is_reused(work: _Work) -> str:
    seeds = defaultdict(list)
    for member in work.finished:
        seeds[member.trial.variant].append(str(member.trial.seed))
    if not seeds:
        return f"{len(work.left)} trials to run"
    which = "; ".join(f"{variant} seed {', '.join(ks)}" for variant, ks in seeds.items())
    count, total = len(work.finished), len(work.members)
    return f"{count} of {total} trials are finished already and are reused: {which}"


def _plan(work: _Work, launcher: Launcher) -> Plan | None:
    """How to run what is left; None where nothing is."""
    count = len(work.left) + work.lacks_floor
    if not count:
        return None
    wants_gpu = any(member.trial.config.train.device != "cpu" for member in work.members)
    plan = launcher.plan(count, wants_gpu=wants_gpu)
    check_extractor_sizes(member.trial.config for member in work.left)
    for member in work.left:
        check_batch(member.trial.config.train, plan.processes)
    return plan


def _remove_damaged(work: _Work) -> None:
    """So that nobody takes a damaged result, which is made again, for the new one."""
    for member in work.left:
        # Another command may have finished it since this one looked.
        if finished_result(member.folder) is None:
            (member.folder / RESULT).unlink(missing_ok=True)
    if finished_floor(work.floor) is None:
        work.floor.unlink(missing_ok=True)


def _restore_lost_record(
    member: AblationMember, parent: Path, notice: Callable[[str], None]
) -> None:
    """Write a finished trial's journal again, which was lost or its beginning damaged, from the
    result, which has the figures of the table, but not the curves of the training."""
    trial, folder = member.trial, member.folder
    result = finished_result(folder)
    assert result is not None
    journal = Journal(folder)
    journal.start(
        experiment=trial.scale,
        run_name=trial_key(trial),
        tags=result["tags"],
        params=flatten(trial.config),
        parent=parent,
    )
    journal.metrics(result["metrics"], step=int(result["training"]["steps"]))
    for name in TRIAL_ARTIFACTS:
        if (folder / name).is_file():
            journal.artifact(Path(name))
    journal.end("FINISHED", "finished")
    journal.close()
    notice(
        f"The record of {trial.variant} seed {trial.seed} was lost or damaged and is written again "
        f"from {folder / RESULT}"
    )


def _jobs(work: _Work, plan: Plan, store_uri: str) -> list[Job]:
    """A job for each trial that is left, behind that of the floor where it has to be measured."""
    references = work.runs_dir / "references"

    def payload(kind: str, trial: Trial, folder: Path) -> dict[str, object]:
        spec = TrialSpec(
            config=to_plain(trial.config),
            variant=trial.variant,
            scale=trial.scale,
            hash=trial.hash,
            folder=str(folder),
            references=str(references),
            parent=str(work.folder),
            store_uri=store_uri,
            root=str(ROOT),
            threads=plan.threads,
            side_by_side=plan.side_by_side,
            processes=plan.processes,
        )
        return {"job": kind, "spec": asdict(spec)}

    jobs = []
    if work.lacks_floor:
        first = work.members[0]
        floor = payload("floor", first.trial, first.folder)
        jobs.append(Job(FLOOR, floor, references / _LOG, work.floor, single_process=True))
    for member in work.left:
        trial, folder = member.trial, member.folder
        told = payload("trial", trial, folder)
        jobs.append(Job(trial_key(trial), told, folder / _LOG, folder / RESULT))
    return jobs


def _end_runs_of_killed_workers(
    failed: tuple[JobResult, ...], members: Sequence[AblationMember]
) -> None:
    """Say in MLflow, and to `status`, how a trial ended whose process could not say it."""
    folders = {trial_key(member.trial): member.folder for member in members}
    for result in failed:
        if not result.caused_by_user and result.stopped is None and result.key in folders:
            end_left_run(folders[result.key], "FAILED", result.reason or "")
            record_ending(folders[result.key], "failed", result.reason or "")
