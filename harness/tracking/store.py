"""The MLflow store of this project: MLflow's own default, or the one that the user names."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock

from harness.machine.files import remove_leftovers
from harness.machine.mlflow_client import (
    URI_VARIABLE,
    error_code,
    explain,
    is_silence,
    mlflow_client,
    sqlite_file,
    without_credentials,
)
from harness.tracking.sqlite_file import (
    ARTIFACTS,
    active_run_ids,
    bring_artifacts_home,
    is_half_made,
    make_database,
    overwrite_with_blank,
)
from models.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MODEL_TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""A tag without which MLflow's pages take an experiment for one on language models."""
_SETUP_SECONDS = 900.0
"""Others wait while one makes the tables of a fresh database: minutes on a slow or shared disk."""
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
_USE_INSTEAD = (
    f"Set {URI_VARIABLE} to a server (http://127.0.0.1:5000) or a database file "
    "(sqlite:////absolute/path/mlflow.db), or unset it to use mlflow.db in this repository."
)


@dataclass(frozen=True)
class Store:
    """One MLflow tracking store. Cheap to make: nothing is opened before it is needed.

    Artifacts go to `mlruns` below `root`, the repository's, unless a server keeps them.
    """

    uri: str
    root: Path

    @property
    def name(self) -> str:
        """The URI without credentials, for messages and files."""
        return without_credentials(self.uri)

    @property
    def database(self) -> Path | None:
        """The SQLite file, or None for other stores."""
        return sqlite_file(self.uri)

    @property
    def has_server(self) -> bool:
        return self.uri.startswith(("http", "databricks"))

    def client(self) -> MlflowClient:
        """Open the store, one process at a time where it is a file.

        A fresh SQLite store that is opened by several processes at once breaks for good. It is made
        beside its place and moved there, so that an interruption leaves none half made; one that an
        interrupted MLflow left half made, with nothing in it, is made anew. Artifacts of a copied
        or moved repository are looked for, and put, in the repository at hand.

        Raises:
            UserError: the database was made by another MLflow, is broken, or was copied without its
                artifacts.
        """
        if self.database is None:
            return mlflow_client(self.uri)
        folder = self.database.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = f"MLflow cannot use {folder}: {explain(error)}"
            raise UserError(f"{why}. {_USE_INSTEAD}") from error
        if not os.access(folder, os.W_OK):
            raise UserError(f"MLflow cannot write to {folder}. {_USE_INSTEAD}")
        with self._setup_lock():
            # Of commands that were killed while they made it, also after the file had its name.
            remove_leftovers(folder, self.database.stem)
            if not self.database.exists() or not self.database.stat().st_size:
                make_database(self.database)
            try:
                client = mlflow_client(self.uri)
            except UserError:
                raise
            except Exception as error:
                if not is_half_made(self.database):
                    raise UserError(_unusable_database(self.database, error)) from error
                overwrite_with_blank(self.database)
                client = mlflow_client(self.uri)
            bring_artifacts_home(self.database)
            return client

    def active_run_ids(self, experiment_id: str) -> set[str]:
        """The ids of an experiment's runs that are not deleted."""
        client = self.client()
        if self.database is not None:
            return active_run_ids(self.database, experiment_id)
        run_ids: set[str] = set()
        token = None
        while True:
            # The server sends all that it has of each run, so few at once keep the memory small.
            page = client.search_runs([experiment_id], max_results=200, page_token=token)
            run_ids.update(run.info.run_id for run in page)
            token = page.token
            if not token:
                return run_ids

    def experiment_id(self, client: MlflowClient, name: str) -> str:
        """The id of an experiment, which is created where the store lacks it.

        Raises:
            UserError: the experiment is in MLflow's trash.
        """
        if self.database is not None:
            with self._setup_lock():
                return self._find_or_create(client, name)
        try:
            return self._find_or_create(client, name)
        except Exception as error:
            # Somebody else created it in between.
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
            return self._find_or_create(client, name)

    def prepare(self, experiment: str, on_notice: Callable[[str], None]) -> bool:
        """Make the store ready before any worker starts, and look whether it answers.

        Returns:
            False where a server does not answer; runs are then kept in their journals and sent
            later.

        Raises:
            UserError: the database cannot be used, a server refuses (a wrong password, say, or an
                address of something else), or the experiment is in MLflow's trash.
        """
        if self.database == self.root / "mlflow.db" and any(self.root.glob("mlruns/*/meta.yaml")):
            on_notice(
                "mlruns/ holds runs of an older MLflow, which `mlflow ui` would show instead of "
                "these; use `mlflow ui --backend-store-uri sqlite:///mlflow.db`"
            )
        try:
            self.experiment_id(self.client(), experiment)
        except UserError:
            raise
        except Exception as error:
            if not self.has_server or not is_silence(error):
                raise UserError(
                    f"MLflow at {self.name} cannot be used: {explain(error)}. See to {URI_VARIABLE}"
                    " and the other MLFLOW_ variables, or unset them to use mlflow.db in this "
                    "repository."
                ) from error
            on_notice(
                f"MLflow at {self.name} does not answer ({explain(error)}); "
                "runs are kept on disk and sent later"
            )
            return False
        return True

    def _find_or_create(self, client: MlflowClient, name: str) -> str:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            # Where MLflow itself would put artifacts, but independent of the working directory.
            beside = self.root if self.database is None else self.database.parent
            location = None if self.has_server else (beside.resolve() / ARTIFACTS / name).as_uri()
            return client.create_experiment(name, location, _MODEL_TRAINING)
        if experiment.lifecycle_stage != "active":
            raise UserError(
                f"The MLflow experiment {name!r} at {self.name} was deleted. Restore it with "
                f"`mlflow experiments restore --experiment-id {experiment.experiment_id}` or "
                "remove it for good with `mlflow gc`."
            )
        return str(experiment.experiment_id)

    def _setup_lock(self) -> FileLock:
        return FileLock(f"{self.database}-setup.lock", timeout=_SETUP_SECONDS)


def open_store(root: Path) -> Store:
    """The store named by MLFLOW_TRACKING_URI, else `mlflow.db` in `root`, where `mlflow ui` looks.

    Raises:
        UserError: the URI is a folder, which MLflow no longer takes, or of an unknown kind.
    """
    root = root.resolve()
    uri = os.environ.get(URI_VARIABLE, "").strip() or f"sqlite:///{root / 'mlflow.db'}"
    scheme = uri.split(":", 1)[0].split("+", 1)[0]
    prefix, _, path = uri.partition(":///")
    if scheme == "file" or (":" not in uri and scheme != "databricks"):
        problem = "a folder, and MLflow no longer keeps runs in folders"
    elif scheme not in _SCHEMES:
        problem = "of no kind that MLflow knows"
    elif scheme == "sqlite" and path in ("", ":memory:"):
        problem = "a database in memory, which trials in other processes cannot reach"
    elif not _is_address(uri):
        problem = "no address that can be read"
    else:
        return Store(f"{prefix}:///{Path(path).absolute()}" if scheme == "sqlite" else uri, root)
    raise UserError(f"{URI_VARIABLE} is {without_credentials(uri)!r}, {problem}. {_USE_INSTEAD}")


def _is_address(uri: str) -> bool:
    try:
        urlsplit(uri)
    except ValueError:
        return False
    return True


def _unusable_database(database: Path, error: Exception) -> str:
    if "out-of-date database schema" in str(error):
        return (
            f"{database} was made by another version of MLflow. Make a copy of it, then run "
            f"`mlflow db upgrade sqlite:///{database}`."
        )
    if "database is locked" in str(error):
        return f"{database} stays locked. End the program that holds it, or try again later."
    return (
        f"MLflow cannot use {database} ({explain(error)}). Move the file away and run the "
        "command again: all runs are filled in again from their journals."
    )
