"""The MLflow store of this project: MLflow's own default, or the one that the user names.

MLflow as a quiet library: fast to give up, nothing printed, nothing reported home.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from models.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient


SETTINGS = {
    # By default an unreachable server blocks one call for 246 s. The publisher repeats by itself,
    # and a repeat within MLflow could create a run twice.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Environment variables, for this process and those that it starts; the user's own win."""


def configure_mlflow() -> None:
    """Import MLflow with the settings above. Takes about 3 seconds the first time."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    # A locked SQLite file is logged with a traceback although the publisher tries again.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def mlflow_client(uri: str) -> MlflowClient:
    """A client of one tracking URI, which leaves MLflow's global URI alone."""
    configure_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def error_code(error: Exception) -> str:
    """MLflow's code of an error, such as RESOURCE_DOES_NOT_EXIST; empty for other exceptions."""
    from mlflow.exceptions import MlflowException

    return str(error.error_code) if isinstance(error, MlflowException) else ""


def without_credentials(text: str) -> str:
    """`text` without the user and password of any URL in it."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def first_line(error: Exception) -> str:
    """An error in one short line, fit to be shown: MLflow's own texts repeat the whole URL."""
    lines = str(error).strip().splitlines() or [""]
    return without_credentials(f"{type(error).__name__}: {lines[0]}")[:300]


URI_VARIABLE = "MLFLOW_TRACKING_URI"

_KIND = "mlflow.experimentKind"

_MODEL_TRAINING = "custom_model_development"
"""Without it MLflow's pages take an experiment for one on language models."""

_SETUP_SECONDS = 900.0
"""Others wait while one makes the tables of a fresh database: minutes on a slow or shared disk."""

_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")

_USE_INSTEAD = (
    f"Set {URI_VARIABLE} to a server (http://127.0.0.1:5000) or a database file "
    "(sqlite:////absolute/path/mlflow.db), or unset it to use mlflow.db in this repository."
)


@dataclass(frozen=True)
class Store:
    """One MLflow tracking store. Cheap to make: nothing is opened before it is needed."""

    uri: str
    root: Path
    """The repository's root; artifacts go to `mlruns` below it unless a server keeps them."""

    @property
    def name(self) -> str:
        """The URI without credentials, for messages and files."""
        return without_credentials(self.uri)

    @property
    def database(self) -> Path | None:
        """The SQLite file, or None for other stores."""
        if not self.uri.startswith("sqlite"):
            return None
        return Path(self.uri.split(":///", 1)[1].split("?", 1)[0])

    @property
    def has_server(self) -> bool:
        return self.uri.startswith("http")

    def client(self) -> MlflowClient:
        """Open the store, one process at a time where it is a file.

        A fresh SQLite store that is opened by several processes at once breaks for good.

        Raises:
            UserError: the database was made by another MLflow, or is broken.
        """
        if self.database is None:
            return mlflow_client(self.uri)
        self.database.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(self.database.parent, os.W_OK):
            raise UserError(f"MLflow cannot write to {self.database.parent}. {_USE_INSTEAD}")
        with self._setup_lock():
            try:
                return mlflow_client(self.uri)
            except Exception as error:
                raise UserError(_unusable_database(self.database, error)) from error

    def experiment_id(self, client: MlflowClient, name: str) -> str:
        """The id of an experiment, which is created where the store lacks it.

        Raises:
            UserError: the experiment is in MLflow's trash.
        """
        from mlflow.exceptions import MlflowException

        if self.database is None:
            try:
                return self._find_or_create(client, name)
            except MlflowException as error:
                # Somebody else created it in between.
                if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                    raise
                return self._find_or_create(client, name)
        with self._setup_lock():
            return self._find_or_create(client, name)

    def prepare(self, experiment: str, on_notice: Callable[[str], None]) -> bool:
        """Make the store ready before any worker starts, and look whether it answers.

        Returns:
            False where a server does not answer; runs are then kept in their journals and sent
            later.

        Raises:
            UserError: the database cannot be used, or the experiment is in MLflow's trash.
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
            if not self.has_server:
                raise UserError(f"MLflow at {self.name} cannot be used: {first_line(error)}") from (
                    error
                )
            on_notice(
                f"MLflow at {self.name} does not answer ({first_line(error)}); "
                "runs are kept on disk and sent later"
            )
            return False
        return True

    def _find_or_create(self, client: MlflowClient, name: str) -> str:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            location = None if self.has_server else self._artifact_location(name)
            return client.create_experiment(
                name, artifact_location=location, tags={_KIND: _MODEL_TRAINING}
            )
        if experiment.lifecycle_stage != "active":
            raise UserError(
                f"The MLflow experiment {name!r} at {self.name} was deleted. Restore it with "
                f"`mlflow experiments restore --experiment-id {experiment.experiment_id}` or "
                "remove it for good with `mlflow gc`."
            )
        return str(experiment.experiment_id)

    def _artifact_location(self, experiment: str) -> str:
        """Where MLflow itself would put artifacts, but independent of the working directory."""
        beside = self.root if self.database is None else self.database.parent
        return (beside.resolve() / "mlruns" / experiment).as_uri()

    def _setup_lock(self) -> FileLock:
        assert self.database is not None
        return FileLock(f"{self.database}-setup.lock", timeout=_SETUP_SECONDS)


def open_store(root: Path) -> Store:
    """The store named by MLFLOW_TRACKING_URI, else `mlflow.db` in `root`, where `mlflow ui` looks.

    Raises:
        UserError: the URI is a folder, which MLflow no longer takes, or of an unknown kind.
    """
    root = root.resolve()
    uri = os.environ.get(URI_VARIABLE, "").strip()
    if not uri:
        return Store(f"sqlite:///{root / 'mlflow.db'}", root)
    scheme = uri.split(":", 1)[0].split("+", 1)[0]
    if scheme == "file" or (":" not in uri and scheme != "databricks"):
        raise UserError(
            f"{URI_VARIABLE} is {uri!r}, a folder, and MLflow no longer keeps runs in folders. "
            f"{_USE_INSTEAD}"
        )
    if scheme not in _SCHEMES:
        raise UserError(f"{URI_VARIABLE} is {uri!r}, of no kind that MLflow knows. {_USE_INSTEAD}")
    if scheme == "sqlite":
        prefix, separator, path = uri.partition(":///")
        if not separator or path in ("", ":memory:"):
            raise UserError(
                f"{URI_VARIABLE} is {uri!r}, a database in memory, which trials in other processes "
                f"cannot reach. {_USE_INSTEAD}"
            )
        uri = f"{prefix}:///{Path(path).absolute()}"
    return Store(uri, root)


def _unusable_database(database: Path, error: Exception) -> str:
    if "out-of-date database schema" in str(error):
        return (
            f"{database} was made by another version of MLflow. Make a copy of it, then run "
            f"`mlflow db upgrade sqlite:///{database}`."
        )
    if "database is locked" in str(error):
        return f"{database} stays locked. End the program that holds it, or try again later."
    return (
        f"MLflow cannot use {database} ({first_line(error)}). Move the file away and run the "
        "command again: all runs are filled in again from their journals."
    )
