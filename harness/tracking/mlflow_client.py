"""MLflow as a quiet library: fast to give up, nothing printed, nothing reported home."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

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
