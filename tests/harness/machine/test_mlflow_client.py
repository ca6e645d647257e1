from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.machine.mlflow_client import explain, is_silence, mlflow_client, within
from harness.machine.mlflow_client import without_credentials as shown
from models.errors import UserError

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://user:s3cr3t@host:5000/x", "http://host:5000/x"),
        ("http://user:s3cr3t@/s3cr3t@host:5000", "http://host:5000"),
        ("https://s3cr3t@host", "https://host"),
        ("htp://user:s3cr3t s3cr3t@host", "htp://host"),
        ("user:s3cr3t@host", "host"),
        ("postgresql://u:a/s3cr3t@h/db?password=s3cr3t@s3cr3t&x=1", "postgresql://h/db?password=***&x=1"),
        (
            "mssql+pyodbc:///?odbc_connect=UID%3Dsa%3BPWD%3Ds3cr3t%2F%3BX%3D1",
            "mssql+pyodbc:///?odbc_connect=UID%3Dsa%3BPWD%3D***%3BX%3D1",
        ),
        ("mssql://h/db?PWD={a;s3cr3t}&x=2", "mssql://h/db?PWD=***&x=2"),
        ("GET http://u:s3cr3t@h:1/ failed, ask me@x", "GET http://h:1/ failed, ask me@x"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("./runs/a@b", "./runs/a@b"),
        ("no address at all", "no address at all"),
    ],
)  # fmt: skip
def test_a_password_is_left_out_and_the_rest_stays(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert SECRET not in shown(text)


@pytest.fixture
def slow_server() -> Iterator[str]:
    """The address of a server that sends an endless header, a byte every 0.2 s."""
    server = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not over.wait(0.2):
            try:
                connection.sendall(b"x")
            except OSError:
                return

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=trickle, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    over.set()
    server.close()


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(
    slow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.machine.mlflow_client._CALL_SECONDS", 2.0)
    with pytest.raises(TimeoutError, match="within 2 seconds") as caught:
        mlflow_client(slow_server).search_experiments()
    assert is_silence(caught.value)


def test_what_a_call_gives_or_raises_comes_through() -> None:
    assert within(5, lambda: 3) == 3
    with pytest.raises(TimeoutError, match="^mine$"):
        within(5, lambda: (_ for _ in ()).throw(TimeoutError("mine")))


def test_an_answer_that_takes_too_long_is_explained() -> None:
    with pytest.raises(TimeoutError) as caught:
        within(0.1, lambda: time.sleep(2))
    assert explain(caught.value) == "TimeoutError: no whole answer within 0.1 seconds"


def test_a_server_that_is_not_there_is_explained_by_its_cause_alone() -> None:
    with pytest.raises(Exception, match="Max retries exceeded") as caught:
        mlflow_client(f"http://user:{SECRET}@127.0.0.1:9").search_experiments()
    assert is_silence(caught.value)
    assert explain(caught.value) == "Connection refused"


@pytest.mark.parametrize(
    "uri", ["postgresql://u:s3cr3t@127.0.0.1:9/x", "mysql://h/x", "mssql://h/x"]
)
def test_a_missing_driver_is_not_taken_for_silence(uri: str) -> None:
    with pytest.raises(ImportError) as caught:
        mlflow_client(uri)
    assert not is_silence(caught.value)
    assert explain(caught.value).startswith("ModuleNotFoundError: No module named")


def test_a_setting_that_cannot_be_read_is_not_taken_for_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "soon")
    with pytest.raises(ValueError, match="MLFLOW_HTTP_REQUEST_TIMEOUT") as caught:
        mlflow_client("http://127.0.0.1:9").search_experiments()
    assert not is_silence(caught.value)


def test_a_folder_in_place_of_a_database_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path} is a folder.*sqlite:///"):
        mlflow_client(f"sqlite:///{tmp_path}")


def test_databricks_without_credentials_is_told_in_whole_sentences_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN", "DATABRICKS_CONFIG_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Exception, match="Databricks") as caught:
        mlflow_client("databricks").search_experiments()
    assert explain(caught.value).endswith("authentication is properly configured")
    assert not caplog.text
