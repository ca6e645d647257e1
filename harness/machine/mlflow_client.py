"""MLflow as a quiet library: a server is waited for equally long everywhere, errors are told in one
line, and no message shows a password."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar, cast

from models.errors import UserError, error_chain, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

URI_VARIABLE = "MLFLOW_TRACKING_URI"

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

_CALL_SECONDS = 30.0
_ARTIFACT_SECONDS = 300.0
"""What one call may take altogether. MLflow's own limit is on the pause between two bytes, so a
server that sends a byte a second would be waited for without end."""

_SILENT = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
_LONGEST = 300

_Result = TypeVar("_Result")


def configure_mlflow() -> None:
    """Import MLflow with the settings above. Takes about 3 seconds the first time."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    # A locked SQLite file is logged with a traceback although the publisher tries again.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    # What it says ends in the exception as well.
    logging.getLogger("mlflow.utils.databricks_utils").setLevel(logging.CRITICAL)


def mlflow_client(uri: str) -> MlflowClient:
    """A client of one tracking URI, which leaves MLflow's global URI alone.

    Raises:
        UserError: the URI names an SQLite file that is a folder.
        TimeoutError: here and from every call of the client: a server gave no whole answer in time.
    """
    configure_mlflow()
    from mlflow import MlflowClient

    database = sqlite_file(uri)
    if database is None:
        client = within(_CALL_SECONDS, lambda: MlflowClient(tracking_uri=uri))
        return cast("MlflowClient", _TimedClient(client))
    if database.is_dir():
        raise UserError(
            f"the MLflow store {database} is a folder, but a database file was expected: set "
            f"{URI_VARIABLE} to sqlite:///{database}/mlflow.db"
        )
    return MlflowClient(tracking_uri=uri)


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for other stores."""
    if not uri.startswith("sqlite"):
        return None
    return Path(uri.split(":///", 1)[-1].split("?", 1)[0])


class _TimedClient:
    """An `MlflowClient` whose calls all end in time. The methods' names and arguments are its."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        of_artifacts = "artifact" in name or name == "log_text"
        seconds = _ARTIFACT_SECONDS if of_artifacts else _CALL_SECONDS
        return lambda *values, **named: within(seconds, lambda: method(*values, **named))


def within(seconds: float, call: Callable[[], _Result]) -> _Result:
    """What `call` gives, from a thread that is left to itself, with a TimeoutError, where it takes
    longer."""
    future: Future[_Result] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=work, name="mlflow-call", daemon=True).start()
    # No timeout of the future's own, which would be told as the cause, and has no words.
    if not wait([future], seconds).done:
        raise TimeoutError(f"no whole answer within {seconds:g} seconds")
    return future.result()


def error_code(error: Exception) -> str:
    """MLflow's code of an error, such as RESOURCE_DOES_NOT_EXIST; empty for other exceptions."""
    from mlflow.exceptions import MlflowException

    return str(error.error_code) if isinstance(error, MlflowException) else ""


def is_silence(error: Exception) -> bool:
    """Whether a store did not answer, or is out of order for now, rather than that waiting does not
    mend it: a wrong password, a missing driver, an address of something else, a bad setting."""
    chain = list(error_chain(error))
    if any(isinstance(each, ValueError | ImportError) for each in chain):
        return False
    return any(isinstance(each, OSError) for each in chain) or error_code(error) in _SILENT


def explain(error: BaseException) -> str:
    """The cause of an error in one short line without credentials: the operating system's own words
    where it has any, since MLflow, SQLAlchemy and requests repeat whole URLs or statements."""
    system = [each for each in error_chain(error) if isinstance(each, OSError)]
    if system and system[-1].strerror:
        return system[-1].strerror
    told = system[-1] if system else error
    text = without_credentials(f"{type(told).__name__}: {first_line(told)}")
    if len(text) <= _LONGEST:
        return text
    whole_sentences, _, _ = text[:_LONGEST].rpartition(". ")
    return whole_sentences or text[:_LONGEST]


_SECRET = re.compile(
    r"((?:password|passwd|pwd|token|secret|access_?key|api_?key)\s*(?:=|%3D))"
    r"""(?:\{[^}]*\}|%7B.*?%7D|"[^"]*"|'[^']*'|(?:(?!&|;|%26|%3B)\S)*)""",
    re.IGNORECASE,
)
"""A key of a query or of an ODBC connection, and its value, which braces or quotes may hold."""
_ADDRESS = re.compile(r"[a-z][\w+.-]*://", re.IGNORECASE)
_FILES = "sqlite|file:"


def without_credentials(text: str) -> str:
    """`text` without values called password, and without user and password of any URL in it: all
    up to its last `@`, since a password may hold `/`, `:` and `@`. SQLite files' stay whole."""
    text = _SECRET.sub(r"\1***", text)
    is_address = _ADDRESS.match(text) or not re.search(r"\s", text)
    if not is_address:
        return re.sub(rf"(?i)\b(?!{_FILES})([a-z][\w+.-]*://)\S*@", r"\1", text)
    if re.match(rf"{_FILES}|[/.~]", text):
        return text
    # A password may hold spaces as well.
    return re.sub(r"(?is)^([a-z][\w+.-]*://)?.*@", r"\1", text)
