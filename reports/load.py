"""An ablation's trials out of MLflow, as one data frame and a list of what is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.machine.mlflow_client import without_credentials
from harness.vocabulary import names
from models.errors import UserError
from reports.identity import parse_identity, shared_identity
from reports.mlflow_store import ablation_runs, find_runs, open_store, read_json_artifact

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run


INFINITY_IN_SQL = 1.7e308
"""MLflow stores infinity as the largest double."""


@dataclass(frozen=True)
class ListedTrial:
    """A trial as the ablation's run lists it. `run_id` is None where it never started."""

    variant: str
    seed: int
    run_id: str | None


@dataclass(frozen=True)
class MissingTrial:
    """A trial that is in no figure, and why."""

    variant: str
    seed: int
    reason: str


@dataclass(frozen=True)
class Floor:
    """The metrics of held-out real images against the reference: what a perfect model scores."""

    values: Mapping[str, float]
    identity: Mapping[str, Any]


@dataclass(frozen=True)
class AblationRuns:
    """All that a report needs to know of one ablation at one scale."""

    tracking_uri: str
    ablation: str
    scale: str
    question: str
    baseline: str
    variants: tuple[str, ...]
    """In table order, those without a finished trial included."""
    trials: pd.DataFrame
    """A row a finished trial: `variant`, `seed`, `run_id`, each tag `harness.*`, each metric."""
    metrics: tuple[str, ...]
    """The columns of `trials` that are metrics; NaN where a trial lacks one or it is infinite."""
    missing: tuple[MissingTrial, ...]
    identity: Mapping[str, Any]
    """Shared by all rows."""
    floor: Floor

    @property
    def command(self) -> str:
        return ablation_command(self.ablation, self.scale)

    def values(self, variant: str, metric: str) -> dict[int, float]:
        """Seed to raw value of one metric, NaN left out; empty for a metric that no trial has."""
        if metric not in self.metrics:
            return {}
        rows = self.trials[self.trials["variant"] == variant]
        pairs = zip(rows["seed"], rows[metric], strict=True)
        return {int(seed): float(value) for seed, value in pairs if math.isfinite(value)}

    def tag(self, tag: str) -> tuple[str, ...]:
        """The distinct values of a tag over the finished trials, in order of appearance."""
        if tag not in self.trials.columns:
            return ()
        return tuple(dict.fromkeys(str(value) for value in self.trials[tag].dropna()))


def ablation_command(ablation: str, scale: str) -> str:
    """What a user types to produce the runs."""
    return f"make ablation EXP={ablation} SCALE={scale}"


def load_ablation(
    tracking_uri: str, ablation: str, scale: str, run_id: str | None = None
) -> AblationRuns:
    """Read an ablation's run and the trials that it lists.

    Trials that are unfinished, failed or gone are left out and named in `missing`.

    Args:
        tracking_uri: of the MLflow store.
        ablation: its name.
        scale: its name, which is the MLflow experiment's.
        run_id: the ablation's own run in MLflow; left out, the one that was last at work and
            lists any trial.

    Raises:
        UserError: the store cannot be read, it knows no such ablation, no trial has finished, or
            the trials were not measured in the same way.
    """
    command = ablation_command(ablation, scale)
    with open_store(tracking_uri, f"run `{command}` first") as client:
        if run_id is None:
            parents = ablation_runs(client, ablation, scale)
        else:
            parents = [client.get_run(run_id)]
        for parent in parents:
            listing = read_json_artifact(client, parent.info.run_id, names.ARTIFACT_TRIALS) or {}
            listed = _listed_trials(listing.get("trials", []), parent.info.run_id)
            if listed:
                ids = [trial.run_id for trial in listed if trial.run_id]
                found = find_runs(client, parent.info.experiment_id, ids)
                trials = [(trial, found.get(trial.run_id or "")) for trial in listed]
                return _assemble(tracking_uri, ablation, scale, parent.data.tags, listing, trials)
    raise UserError(
        f"MLflow ({without_credentials(tracking_uri)}) holds no run of ablation {ablation} at "
        f"scale {scale} that lists its trials in {names.ARTIFACT_TRIALS}: run `{command}` first"
    )


def _assemble(
    tracking_uri: str,
    ablation: str,
    scale: str,
    tags: Mapping[str, str],
    listing: Mapping[str, Any],
    trials: Sequence[tuple[ListedTrial, Run | None]],
) -> AblationRuns:
    command = ablation_command(ablation, scale)
    reasons = {trial: _why_missing(trial, run) for trial, run in trials}
    finished = [(trial, run) for trial, run in trials if run and reasons[trial] is None]
    missing = tuple(
        MissingTrial(trial.variant, trial.seed, reason)
        for trial, reason in reasons.items()
        if reason is not None
    )
    if not finished:
        lost = "\n".join(f"  {one.variant} seed {one.seed}: {one.reason}" for one in missing)
        raise UserError(
            f"no trial of ablation {ablation} at scale {scale} has finished:\n{lost}\n"
            f"`{command}` goes on where they stopped"
        )
    identities = {
        f"{trial.variant} seed {trial.seed}": parse_identity(
            run.data.tags.get(names.TAG_METRIC_IDENTITY), f"MLflow run {run.info.run_id}"
        )
        for trial, run in finished
    }
    remedy = f"`{command}` measures all of them in the way that the configuration says now"
    frame, metrics = _frame(finished)
    return AblationRuns(
        tracking_uri=tracking_uri,
        ablation=ablation,
        scale=scale,
        question=tags.get(names.TAG_QUESTION, ""),
        baseline=tags.get(names.TAG_BASELINE, ""),
        variants=tuple(dict.fromkeys(trial.variant for trial, _ in trials)),
        trials=frame,
        metrics=metrics,
        missing=missing,
        identity=shared_identity(identities, remedy),
        floor=_floor(listing),
    )


def _floor(listing: Mapping[str, Any]) -> Floor:
    values = {
        key: float(value)
        for key, value in (listing.get("floor") or {}).items()
        if value is not None and math.isfinite(value)
    }
    return Floor(values=values, identity=listing.get("floor_identity") or {})


def _listed_trials(entries: object, run_id: str) -> list[ListedTrial]:
    if not isinstance(entries, list):
        raise UserError(f"{names.ARTIFACT_TRIALS} of MLflow run {run_id}: trials is not a list")
    trials: dict[tuple[str, int], ListedTrial] = {}
    for entry in entries:
        try:
            run = entry.get("run_id") or None
            trial = ListedTrial(str(entry["variant"]), int(entry["seed"]), run)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{names.ARTIFACT_TRIALS} of MLflow run {run_id}: {json.dumps(entry)} is not a "
                "trial with variant, seed and run_id"
            ) from error
        trials.setdefault((trial.variant, trial.seed), trial)
    return list(trials.values())


def _why_missing(trial: ListedTrial, run: Run | None) -> str | None:
    """None where the trial has finished and may stand in a table."""
    if trial.run_id is None:
        return "not started"
    if run is None:
        return f"its run {trial.run_id} is no longer in MLflow"
    if run.info.status == "FINISHED":
        return None
    state = {"RUNNING": "unfinished", "SCHEDULED": "not started", "KILLED": "stopped"}.get(
        run.info.status, "failed"
    )
    because = run.data.tags.get(names.TAG_ENDED_BECAUSE)
    return f"{state}: {because}" if because else state


def _frame(finished: Sequence[tuple[ListedTrial, Run]]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    import pandas as pd

    rows = []
    metrics: dict[str, None] = {}
    for trial, run in finished:
        figures = {
            key: value if abs(value) < INFINITY_IN_SQL else math.nan
            for key, value in run.data.metrics.items()
            if not key.startswith("system/")
        }
        tags = {key: value for key, value in run.data.tags.items() if key.startswith("harness.")}
        metrics.update(dict.fromkeys(figures))
        # The variant's name is the ablation's: another ablation may call the same trial otherwise.
        rows.append(
            tags
            | figures
            | {"variant": trial.variant, "seed": trial.seed, "run_id": run.info.run_id}
        )
    return pd.DataFrame(rows), tuple(metrics)


MACHINE_TAGS = {
    names.TAG_DEVICE: "on different devices",
    names.TAG_SIDE_BY_SIDE: "with different numbers of trials side by side",
    names.TAG_PROCESSES: "with different numbers of processes a trial",
}


def machine_differences(runs: AblationRuns) -> tuple[str, ...]:
    """In words, what differs between the machines of the finished trials; empty where alike."""
    return tuple(
        f"{difference} ({', '.join(runs.tag(tag))})"
        for tag, difference in MACHINE_TAGS.items()
        if len(runs.tag(tag)) > 1
    )
