"""Reading from MLflow: opening a store, finding an ablation's run, fetching single artifacts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.machine.mlflow_client import (
    URI_VARIABLE,
    explain,
    mlflow_client,
    sqlite_file,
    without_credentials,
)
from harness.vocabulary import names
from models.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_RUNS_A_PAGE = 1000
_IDS_A_QUERY = 200


@contextmanager
def open_store(tracking_uri: str, remedy: str) -> Iterator[MlflowClient]:
    """A client for reading; the store's own errors inside the block become one plain message.

    Args:
        tracking_uri: of the store.
        remedy: what the user can do where the store does not exist.

    Raises:
        UserError: the SQLite file is missing (MLflow would make an empty one), or the store cannot
            be read.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    database = sqlite_file(tracking_uri)
    if database is not None and not database.exists():
        raise UserError(
            f"there is no MLflow store at {database} yet: {remedy}, or set {URI_VARIABLE} to the "
            "store that holds your runs"
        )
    try:
        yield mlflow_client(tracking_uri)
    except (MlflowException, SQLAlchemyError, ImportError, TimeoutError) as error:
        raise UserError(
            f"cannot read the MLflow store {without_credentials(tracking_uri)}: {explain(error)}"
        ) from error


def ablation_runs(client: MlflowClient, ablation: str, scale: str) -> list[Run]:
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
    found = [run for run in runs if run.data.tags.get(names.TAG_ABLATION) == ablation]
    return sorted(found, key=_last_at_work, reverse=True)


def find_runs(client: MlflowClient, experiment_id: str, run_ids: Sequence[str]) -> dict[str, Run]:
    """An experiment's runs by their ids; those that are unknown or deleted are left out."""
    found = {}
    for at in range(0, len(run_ids), _IDS_A_QUERY):
        ids = ", ".join(
            f"'{run_id}'" for run_id in run_ids[at : at + _IDS_A_QUERY] if run_id.isalnum()
        )
        for run in _search(client, experiment_id, f"attributes.run_id IN ({ids})"):
            found[run.info.run_id] = run
    return found


def _search(client: MlflowClient, experiment_id: str, condition: str) -> Iterator[Run]:
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment_id], condition, max_results=_RUNS_A_PAGE, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _last_at_work(run: Run) -> int:
    """Milliseconds since the epoch."""
    return max(run.info.start_time or 0, run.info.end_time or 0)


def has_artifact(client: MlflowClient, run_id: str, name: str) -> bool:
    """Whether the run holds `name` at the top of its artifacts."""
    return any(artifact.path == name for artifact in client.list_artifacts(run_id))


@contextmanager
def fetched_artifact(client: MlflowClient, run_id: str, name: str) -> Iterator[Path]:
    """A local copy of one artifact for the length of the block."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(client.download_artifacts(run_id, name, folder))


def read_json_artifact(client: MlflowClient, run_id: str, name: str) -> dict[str, Any] | None:
    """The JSON object in an artifact; None where the run has no such artifact.

    Raises:
        UserError: it is something else than a JSON object.
    """
    if not has_artifact(client, run_id, name):
        return None
    with fetched_artifact(client, run_id, name) as path:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(
                f"artifact {name} of MLflow run {run_id} is not JSON: {error}"
            ) from error
    if not isinstance(content, dict):
        raise UserError(f"artifact {name} of MLflow run {run_id} is not a JSON object")
    return content
