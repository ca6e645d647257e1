"""A worker's part of a search: take one trial of the study, train its configuration with each seed,
tell the study the mean, and stop early where the pruner says so.

What the pruner compares at a step of the k-th seed is the mean validation loss, at that step, over
the seeds up to the k-th. Optuna is told it under the step (k - 1) * longest + step, so that only
figures of as many seeds and steps are held against each other. Losses that a trial recorded before,
in an earlier command or for another purpose, are told first: a resumed trial is judged like one
that was never interrupted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.trial import TrialState

from harness.config.load import Trial
from harness.config.serialisation import to_plain
from harness.machine.environment import ROOT
from harness.machine.files import write_json
from harness.processes.progress import Progress, ProgressListener
from harness.processes.signals import StopRequest
from harness.processes.status import recorded_status
from harness.search.config import SearchSpec, config_at
from harness.search.study import MEMBERS, REASON, SCORES, claimed_trial
from harness.tracking.events import Metrics, recorded_events
from harness.trial.run import run_trial
from harness.trial.spec import TrialSpec, finished_result, trial_folder
from harness.vocabulary import names
from harness.vocabulary.names import VALIDATION_LOSS
from models.errors import Preempted, UserError, one_line


@dataclass
class Pruning:
    """The validation losses of one configuration, seed after seed."""

    trial: optuna.Trial
    """Optuna's, which is told the losses and asked whether to stop."""
    negate: bool
    """The study maximises, while a loss is better where it is less."""
    longest: int
    """The most training steps that a configuration of the search may have."""
    stop: StopRequest = field(default_factory=StopRequest)
    """Requested once the trial shall stop, and looked at by the training of the present seed."""
    where: str = ""
    """The step and seed at which the configuration was stopped; empty while it is not."""
    _curves: list[dict[int, float]] = field(default_factory=list)
    _last_step: int | None = None

    def begin_seed(self, folder: Path, last_step: int, *, last_seed: bool) -> bool:
        """Go on to the next seed, and look at what its trial in `folder`, if any, has recorded.

        Behind the last seed's `last_step` nothing follows that a stop would save.

        Returns:
            Whether the configuration shall go on.
        """
        self._curves.append({})
        self._last_step = last_step if last_seed else None
        for step, loss in recorded_losses(folder).items():
            self.listen({VALIDATION_LOSS: loss}, step)
        return not self.where

    def listen(self, metrics: Mapping[str, float], step: int) -> None:
        """Take a step's metrics; requests the stop where the pruner says so."""
        loss = metrics.get(VALIDATION_LOSS)
        curve = self._curves[-1]
        if loss is None or step in curve or not math.isfinite(loss) or self.stop.requested:
            return
        curve[step] = loss
        if not all(step in other for other in self._curves):
            return
        mean = fmean(other[step] for other in self._curves)
        position = (len(self._curves) - 1) * self.longest + step
        self.trial.report(-mean if self.negate else mean, position)
        if step != self._last_step and self.trial.should_prune():
            self.where = f"at step {step} of seed {len(self._curves)}"
            self.stop.request("pruning")


def recorded_losses(folder: Path) -> dict[int, float]:
    """The validation losses in the journal of a trial, by step, in their order."""
    losses: dict[int, float] = {}
    for event in recorded_events(folder):
        if isinstance(event, Metrics) and VALIDATION_LOSS in event.values:
            losses.setdefault(event.step, event.values[VALIDATION_LOSS])
    return dict(sorted(losses.items()))


def search_trials(
    payload: Mapping[str, Any], report: ProgressListener, stop: StopRequest
) -> dict[str, Any]:
    """What a worker is called with: `{"spec": a SearchSpec, "result": a file}`.

    Returns:
        As in the file: the trial's `number`, None where none was left to take; its `state` and what
        to say `about` it.

    Raises:
        Preempted: a stop was requested; the trial is given back.
        Exception: whatever ended the trial and is no mistake of the user's; the study knows.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spec, result = SearchSpec.model_validate(payload["spec"]), Path(payload["result"])
    with recorded_status(result.parent, report) as recorded, claimed_trial(spec) as claimed:
        told: dict[str, Any] = {"number": None}
        if claimed is not None:
            study, trial = claimed
            print(f"trial {trial.number}: {json.dumps(trial.params)}", flush=True)
            pruning = Pruning(trial, spec.objective.maximize, spec.longest, stop)
            told = _Evaluation(spec, study, trial, recorded, pruning).run()
        write_json(result, told)
    return told


@dataclass(frozen=True)
class _Evaluation:
    """One claimed trial."""

    spec: SearchSpec
    study: optuna.Study
    trial: optuna.Trial
    report: ProgressListener
    pruning: Pruning

    def run(self) -> dict[str, Any]:
        try:
            scores = self._scores()
        except UserError as error:
            return self._fail(str(error))
        except Preempted:
            raise  # stopped from outside: given back as it is
        except Exception as error:
            self._fail(one_line(error, named=True))
            raise
        if scores is None:
            self._tell(TrialState.PRUNED)
            return self._told("pruned", f"pruned {self.pruning.where}")
        mean = fmean(scores)
        if not math.isfinite(mean):
            return self._fail(f"{self.spec.metric} is not finite")
        self._tell(TrialState.COMPLETE, mean)
        return self._told("complete", f"{self.spec.metric} {mean:.6g}")

    def _scores(self) -> list[float] | None:
        """The configuration's score with each seed; None where the pruner stopped it."""
        spec, runs_dir = self.spec, Path(self.spec.runs_dir)
        scores: dict[int, float] = {}
        folders: dict[int, str] = {}
        for seed in spec.seeds:
            config = config_at(spec.tree, self.trial.params, seed, f"trial {self.trial.number}")
            member = Trial(spec.scale, spec.name, config)
            folder = trial_folder(runs_dir, member)
            folders[seed] = folder.relative_to(runs_dir).as_posix()
            self.trial.set_user_attr(MEMBERS, json.dumps(folders))
            last = seed == spec.seeds[-1]
            if not self.pruning.begin_seed(folder, config.train.steps, last_seed=last):
                return None
            try:
                result = finished_result(folder) or self._train(member, folder)
            except Preempted:
                if not self.pruning.where:
                    raise
                return None
            score = result["metrics"].get(spec.metric)
            if score is None:
                raise UserError(
                    f"{folder} has no {spec.metric}: it could not be measured with these evaluate "
                    "settings"
                )
            scores[seed] = float(score)
            self.trial.set_user_attr(SCORES, json.dumps(scores))
        return list(scores.values())

    def _train(self, member: Trial, folder: Path) -> dict[str, Any]:
        number, search = self.trial.number, self.spec
        where = f"trial {number}, seed {member.seed}"

        def report(progress: Progress) -> None:
            note = f"{where}; {progress.note}" if progress.note else where
            self.report(replace(progress, note=note))

        spec = TrialSpec(
            config=to_plain(member.config),
            variant=f"{search.name}-{number}",
            scale=search.scale,
            hash=member.hash,
            folder=str(folder),
            references=str(Path(search.runs_dir) / "references"),
            parent=search.folder,
            store_uri=search.store_uri,
            root=str(ROOT),
            threads=search.threads,
            side_by_side=search.side_by_side,
            tags={names.TAG_SEARCH: search.name, names.TAG_SEARCH_TRIAL: str(number)},
        )
        return run_trial(spec, report, self.pruning.stop, self.pruning.listen)

    def _fail(self, reason: str) -> dict[str, Any]:
        shown = one_line(reason, most=1000)
        self.trial.set_user_attr(REASON, shown)
        self._tell(TrialState.FAIL)
        return self._told("failed", f"failed: {shown}")

    def _tell(self, state: TrialState, value: float | None = None) -> None:
        # A database may have given the trial to another worker while this one was not heard of.
        self.study.tell(self.trial.number, value, state, skip_if_finished=True)

    def _told(self, state: str, about: str) -> dict[str, Any]:
        return {"number": self.trial.number, "state": state, "about": about}
