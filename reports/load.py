"""An ablation's trials out of MLflow, as one data frame and a list of what is missing."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.machine.mlflow_client import (
    URI_VARIABLE,
    explain,
    mlflow_client,
    sqlite_file,
    without_credentials,
)
from harness.vocabulary import names
from models.errors import UserError
from reports.identity import parse_identity, shared_identity

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_IDS_A_QUERY = 200
INFINITY_IN_SQL = 1.7e308
"""MLflow stores infinity as the largest double."""

MACHINE_TAGS = {
    names.TAG_DEVICE: "on different devices",
    names.TAG_SIDE_BY_SIDE: "with different numbers of trials side by side",
    names.TAG_PROCESSES: "with different numbers of processes a trial",
}


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

    def of(self, variant: str) -> pd.DataFrame:
        """The rows of `trials` of one variant."""
        return self.trials[self.trials["variant"] == variant]

    def values(self, variant: str, metric: str) -> dict[int, float]:
        """Seed to raw value of one metric, NaN left out; empty for a metric that no trial has."""
        if metric not in self.metrics:
            return {}
        rows = self.of(variant)
        pairs = zip(rows["seed"], rows[metric], strict=True)
        return {int(seed): float(value) for seed, value in pairs if math.isfinite(value)}

    def tag(self, tag: str) -> tuple[str, ...]:
        """The distinct values of a tag over the finished trials, in order of appearance."""
        if tag not in self.trials.columns:
            return ()
        return tuple(dict.fromkeys(str(value) for value in self.trials[tag].dropna()))

    @property
    def machine_differences(self) -> tuple[str, ...]:
        """In words, what differs between the machines of the finished trials; empty where alike."""
        return tuple(
            f"{difference} ({'; '.join(self.tag(tag))})"
            for tag, difference in MACHINE_TAGS.items()
            if len(self.tag(tag)) > 1
        )


@contextmanager
def open_store(tracking_uri: str, ablation: str, scale: str) -> Iterator[MlflowClient]:
    """A client for reading; the store's own errors inside the block become one plain message.

    Raises:
        UserError: the SQLite file is missing (MLflow would make an empty one), or the store cannot
            be read.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    database = sqlite_file(tracking_uri)
    if database is not None and not database.exists():
        raise UserError(
            f"there is no MLflow store at {database} yet: run `{_command(ablation, scale)}` first, "
            f"or set {URI_VARIABLE} to the store that holds your runs"
        )
    try:
        yield mlflow_client(tracking_uri)
    except (MlflowException, SQLAlchemyError, ImportError, TimeoutError) as error:
        raise UserError(
            f"cannot read the MLflow store {without_credentials(tracking_uri)}: {explain(error)}; "
            f"see to it, or set {URI_VARIABLE} to the store that holds your runs"
        ) from error


@contextmanager
def fetched_artifact(client: MlflowClient, run_id: str, name: str) -> Iterator[Path | None]:
    """A local copy of one artifact for the length of the block; None where the run has none."""
    if all(artifact.path != name for artifact in client.list_artifacts(run_id)):
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(client.download_artifacts(run_id, name, folder))


def load_ablation(
    tracking_uri: str, ablation: str, scale: str, run_id: str | None = None
) -> AblationRuns:
    """Read an ablation's run and the trials that it lists.

    Trials that are unfinished, failed or gone are left out and named in `missing`. `run_id` is the
    ablation's own run; left out, it is the one last at work that lists any trial.

    Raises:
        UserError: the store cannot be read, it knows no such ablation, no trial has finished, or
            the trials were not measured in the same way.
    """
    again = _command(ablation, scale)
    with open_store(tracking_uri, ablation, scale) as client:
        parents = [client.get_run(run_id)] if run_id else _parents(client, ablation, scale)
        for parent in parents:
            listing = _read_listing(client, parent.info.run_id)
            listed = _listed_trials(listing.get("trials", []), parent.info.run_id)
            if listed:
                found = _find_runs(client, parent.info.experiment_id, filter(None, listed.values()))
                break
        else:
            raise UserError(
                f"MLflow ({without_credentials(tracking_uri)}) holds no run of ablation {ablation} "
                f"at scale {scale} that lists its trials in {names.ARTIFACT_TRIALS}: run `{again}` "
                "first"
            )
    finished: dict[tuple[str, int], Run] = {}
    missing: list[MissingTrial] = []
    for trial, its_run in listed.items():
        run = found.get(its_run or "")
        if run is not None and run.info.status == "FINISHED":
            finished[trial] = run
        else:
            missing.append(MissingTrial(*trial, _why_missing(its_run, run)))
    if not finished:
        lost = "\n".join(f"  {one.variant} seed {one.seed}: {one.reason}" for one in missing)
        raise UserError(
            f"no trial of ablation {ablation} at scale {scale} has finished:\n{lost}\n"
            f"`{again}` goes on where they stopped"
        )
    identities = {
        f"{variant} seed {seed}": parse_identity(
            run.data.tags.get(names.TAG_METRIC_IDENTITY), f"MLflow run {run.info.run_id}"
        )
        for (variant, seed), run in finished.items()
    }
    remedy = f"`{again}` measures all of them in the way that the configuration says now"
    trials, metrics = _frame(finished)
    return AblationRuns(
        tracking_uri=tracking_uri,
        ablation=ablation,
        scale=scale,
        question=parent.data.tags.get(names.TAG_QUESTION, ""),
        baseline=parent.data.tags.get(names.TAG_BASELINE, ""),
        variants=tuple(dict.fromkeys(variant for variant, _ in listed)),
        trials=trials,
        metrics=metrics,
        missing=tuple(missing),
        identity=shared_identity(identities, remedy),
        floor=_floor(listing),
    )


def _command(ablation: str, scale: str) -> str:
    return f"make ablation EXP={ablation} SCALE={scale}"


def _parents(client: MlflowClient, ablation: str, scale: str) -> list[Run]:
    """The ablation's own runs, the one that was last at work first; none without the experiment.

    A command that is repeated for the same trials goes on with its old run, so the end counts as
    well as the start. The filter holds no name that a user chose, so no quoting can go wrong:
    names are compared here.
    """
    experiment = client.get_experiment_by_name(scale)
    if experiment is None or experiment.lifecycle_stage != "active":
        return []
    kind = f"tags.`{names.TAG_KIND}` = '{names.KIND_ABLATION}'"
    runs = _search(client, experiment.experiment_id, kind)
    return sorted(
        (run for run in runs if run.data.tags.get(names.TAG_ABLATION) == ablation),
        key=lambda run: max(run.info.start_time or 0, run.info.end_time or 0),
        reverse=True,
    )


def _find_runs(client: MlflowClient, experiment_id: str, run_ids: Iterable[str]) -> dict[str, Run]:
    """By id; runs that are unknown or deleted are left out."""
    ids = [f"'{run_id}'" for run_id in run_ids if run_id.isalnum()]
    found: dict[str, Run] = {}
    for at in range(0, len(ids), _IDS_A_QUERY):
        among = f"attributes.run_id IN ({', '.join(ids[at : at + _IDS_A_QUERY])})"
        found |= {run.info.run_id: run for run in _search(client, experiment_id, among)}
    return found


def _search(client: MlflowClient, experiment_id: str, condition: str) -> Iterator[Run]:
    page = None
    while page is None or page.token:
        token = page.token if page else None
        page = client.search_runs([experiment_id], condition, max_results=1000, page_token=token)
        yield from page


def _read_listing(client: MlflowClient, run_id: str) -> dict[str, Any]:
    where = f"artifact {names.ARTIFACT_TRIALS} of MLflow run {run_id}"
    with fetched_artifact(client, run_id, names.ARTIFACT_TRIALS) as path:
        try:
            content = json.loads(path.read_text(encoding="utf-8")) if path else {}
        except ValueError as error:
            raise UserError(f"{where} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{where} is not a JSON object")
    return content


def _listed_trials(entries: object, run_id: str) -> dict[tuple[str, int], str | None]:
    """Variant and seed to the id of the trial's run, which is None where it never started."""
    where = f"{names.ARTIFACT_TRIALS} of MLflow run {run_id}"
    if not isinstance(entries, list):
        raise UserError(f"{where}: trials is not a list")
    trials: dict[tuple[str, int], str | None] = {}
    for entry in entries:
        try:
            key = (str(entry["variant"]), int(entry["seed"]))
            trials.setdefault(key, entry.get("run_id") or None)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{where}: {json.dumps(entry)} is not a trial with variant, seed and run_id"
            ) from error
    return trials


def _floor(listing: Mapping[str, Any]) -> Floor:
    recorded = listing.get("floor") or {}
    finite = {key: float(v) for key, v in recorded.items() if v is not None and math.isfinite(v)}
    return Floor(finite, listing.get("floor_identity") or {})


def _why_missing(run_id: str | None, run: Run | None) -> str:
    if run_id is None:
        return "not started"
    if run is None:
        return f"its run {run_id} is no longer in MLflow"
    states = {"RUNNING": "unfinished", "SCHEDULED": "not started", "KILLED": "stopped"}
    state = states.get(run.info.status, "failed")
    because = run.data.tags.get(names.TAG_ENDED_BECAUSE)
    return f"{state}: {because}" if because else state


def _frame(finished: Mapping[tuple[str, int], Run]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows of `AblationRuns.trials`, and its metrics."""
    rows = []
    metrics: dict[str, None] = {}
    # The variant's name is the ablation's: another ablation may call the same trial otherwise.
    for (variant, seed), run in finished.items():
        figures = {
            key: value if abs(value) < INFINITY_IN_SQL else math.nan
            for key, value in run.data.metrics.items()
            if not key.startswith("system/")
        }
        metrics |= dict.fromkeys(figures)
        tags = {key: value for key, value in run.data.tags.items() if key.startswith("harness.")}
        place = {"variant": variant, "seed": seed, "run_id": run.info.run_id}
        rows.append(tags | figures | place)
    return pd.DataFrame(rows), tuple(metrics)
