"""What MLflow's client cannot do with the SQLite file of its store.

MLflow makes the tables step by step and is lost where it is interrupted, keeps the absolute paths
of artifacts for ever, and reads whole runs where only their ids are asked for. The tables and
columns named here are those of MLflow 3 (mlflow/store/tracking/dbmodels/models.py).
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlparse

from harness.machine.files import atomic_path
from harness.machine.mlflow_client import mlflow_client
from models.errors import UserError

ARTIFACTS = "mlruns"
"""The folder of artifacts beside the database, where MLflow itself would put them."""
_FILLED_BY_SETUP = ("alembic_version", "experiments", "workspaces")
"""Tables that hold rows before anybody has used a database."""
_LOCK_SECONDS = 60.0


def make_database(database: Path) -> None:
    """Make an empty MLflow database, whole or not at all."""
    with atomic_path(database) as temporary:
        mlflow_client(f"sqlite:///{temporary}")


def is_half_made(database: Path) -> bool:
    """Whether a database holds nothing but what the setup itself writes, so that nothing is lost
    where it is made anew."""
    try:
        with _opened(database) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            return not any(
                connection.execute(f'SELECT EXISTS (SELECT 1 FROM "{name}")').fetchone()[0]  # noqa: S608
                for (name,) in tables.fetchall()
                if name not in _FILLED_BY_SETUP
            )
    except sqlite3.Error:
        return False


def overwrite_with_blank(database: Path) -> None:
    """Give a half-made database the tables that it lacks.

    Its file stays, since MLflow has it open by now: SQLite copies the pages of a blank one into it.
    """
    with tempfile.TemporaryDirectory() as folder:
        blank = Path(folder) / "mlflow.db"
        mlflow_client(f"sqlite:///{blank}")
        with _opened(blank) as source, _opened(database) as into:
            source.backup(into)


def active_run_ids(database: Path, experiment_id: str) -> set[str]:
    """The ids of an experiment's runs that are not deleted."""
    with _opened(database) as connection:
        found = connection.execute(
            "SELECT run_uuid FROM runs WHERE experiment_id = ? AND lifecycle_stage = 'active'",
            (int(experiment_id),),
        )
        return {run_id for (run_id,) in found}


def bring_artifacts_home(database: Path) -> None:
    """Let the experiments of a database that was copied or moved keep their artifacts beside it.

    MLflow holds the absolute path of each, so that what a copy records would go into the original,
    and what a moved one recorded would not be found.

    Raises:
        UserError: the files themselves were left behind.
    """
    with _opened(database) as connection, connection:
        for number, name, location in connection.execute(
            "SELECT experiment_id, name, artifact_location FROM experiments"
        ).fetchall():
            home = database.parent.resolve() / ARTIFACTS / name
            old = _path(location)
            # Only what was put beside a database by rule; a place of the user's own choice stays.
            if old is None or old.parts[-2:] != (ARTIFACTS, name) or home in (old, old.resolve()):
                continue
            if not home.exists() and old.exists() and any(old.iterdir()):
                raise UserError(
                    f"{database} was copied without its artifacts: those of experiment {name!r} "
                    f"are in {old}, where new ones would go as well. Copy them "
                    f"(`mkdir -p {home.parent} && cp -r {old} {home}`) and run the command again."
                )
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
                (home.as_uri(), number),
            )
            connection.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                (home.as_uri(), len(location) + 1, number, len(location), location),
            )


def _path(location: str) -> Path | None:
    parsed = urlparse(location)
    return Path(unquote(parsed.path)) if parsed.scheme == "file" and not parsed.netloc else None


@contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(database, timeout=_LOCK_SECONDS)) as connection:
        yield connection
