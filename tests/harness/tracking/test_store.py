from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from harness.tracking.store import Store, open_store
from models.errors import UserError
from tests.support.processes.deaf_server import deaf_server


@pytest.fixture(autouse=True)
def no_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_default_is_where_a_bare_mlflow_ui_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store, notices: list[str]
) -> None:
    import mlflow

    assert store.prepare("digits", notices.append)
    # The folder that prepare leaves must not turn `mlflow ui` to its old file store.
    (store.root / "mlruns" / "digits" / "run" / "artifacts").mkdir(parents=True)
    monkeypatch.chdir(store.root)
    assert open_store(store.root).uri == store.uri == mlflow.get_tracking_uri()
    assert notices == []


def test_the_users_own_uri_is_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert open_store(tmp_path).uri == "http://127.0.0.1:5000"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    assert open_store(Path("/")).database == tmp_path / "elsewhere.db"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("file:///tmp/mlruns", "folder"),
        ("./mlruns", "folder"),
        ("/tmp/mlruns", "folder"),
        ("htp://host", "no kind"),
        ("http://user:S3CR@[bad", "no address"),
        ("sqlite://", "memory"),
        ("sqlite:///:memory:", "memory"),
    ],
)
def test_an_unusable_uri_is_refused_with_what_to_use_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, says: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match=rf"MLFLOW_TRACKING_URI.*{says}.*sqlite:////"):
        open_store(tmp_path)


def test_credentials_in_the_uri_are_never_shown(tmp_path: Path, notices: list[str]) -> None:
    store = Store("http://user:secret@127.0.0.1:9/x", tmp_path)
    assert store.name == "http://127.0.0.1:9/x"
    assert not store.prepare("digits", notices.append)
    assert "secret" not in notices[0]


def test_a_folder_name_with_odd_characters_works(blank_database: Path) -> None:
    with sqlite3.connect(blank_database) as database:
        tables = database.execute("SELECT name FROM sqlite_master").fetchall()
    assert ("runs",) in tables


def test_preparing_again_keeps_the_experiment(store: Store, notices: list[str]) -> None:
    assert store.prepare("digits", notices.append)
    assert store.prepare("digits", notices.append)
    experiments = store.client().search_experiments(filter_string="name = 'digits'")
    assert len(experiments) == 1
    assert experiments[0].artifact_location == (store.root / "mlruns" / "digits").as_uri()


def test_a_deleted_experiment_is_explained(store: Store, notices: list[str]) -> None:
    store.prepare("digits", notices.append)
    client = store.client()
    client.delete_experiment(store.experiment_id(client, "digits"))
    with pytest.raises(UserError, match="mlflow experiments restore"):
        store.prepare("digits", notices.append)


def test_a_broken_database_is_explained(tmp_path: Path, notices: list[str]) -> None:
    store = open_store(tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        database.execute("INSERT INTO alembic_version VALUES ('unknown')")
        database.execute("CREATE TABLE runs (run_uuid VARCHAR(32))")
        database.execute("INSERT INTO runs VALUES ('precious')")
    with pytest.raises(UserError, match=r"mlflow\.db.*Move the file away"):
        store.prepare("digits", notices.append)


INTERRUPTED = """
import sys
import time
from harness.machine.mlflow_client import configure_mlflow
from harness.tracking.store import open_store
from pathlib import Path
configure_mlflow()
import mlflow.store.tracking.sqlalchemy_store
print("go", flush=True)
open_store(Path(sys.argv[1])).client()
print("made", flush=True)
"""


@pytest.mark.slow
def test_a_kill_while_the_database_is_made_costs_nothing(
    tmp_path: Path, notices: list[str]
) -> None:
    """Killed for real at moments spread over the few seconds that the tables take."""
    interrupted = 0
    for delay in (0.05, 0.3, 0.6, 1.0, 1.5):
        with subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "go\n"
            time.sleep(delay)
            process.kill()
            interrupted += process.stdout.read() == ""
        if not (tmp_path / "mlflow.db").exists():
            continue
        assert open_store(tmp_path).client().search_experiments()
        break
    assert interrupted, "no kill came before the database was made"
    assert open_store(tmp_path).prepare("digits", notices.append)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".mlflow-")]


def damaged_copy(store: Store, folder: Path, *statements: str) -> Store:
    """A store on a copy of the database, since MLflow looks at one and the same file only once."""
    assert store.database is not None
    folder.mkdir()
    shutil.copyfile(store.database, folder / "mlflow.db")
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        for statement in statements:
            database.execute(statement)
    return Store(f"sqlite:///{folder / 'mlflow.db'}", folder)


HALF_MADE = ("DELETE FROM alembic_version", "DROP TABLE input_tags")
"""Tables are there, but not all, nor the record of which of MLflow's migrations made them."""
OUTDATED = ("UPDATE alembic_version SET version_num = '0'",)


@pytest.mark.parametrize("damage", [HALF_MADE, OUTDATED])
def test_a_database_that_mlflow_left_half_made_is_made_anew(
    store: Store, tmp_path: Path, notices: list[str], damage: tuple[str, ...]
) -> None:
    copy = damaged_copy(store, tmp_path / "copy", *damage)
    assert copy.prepare("digits", notices.append)


def test_what_a_killed_command_left_beside_the_database_is_removed(
    store: Store, notices: list[str]
) -> None:
    assert store.prepare("digits", notices.append)
    assert store.database is not None
    left = store.database.with_name(f".{store.database.stem}-abcd1234.db")
    left.touch()
    assert store.prepare("digits", notices.append)
    assert not left.exists()
    assert store.database.exists()


@pytest.mark.parametrize(
    ("damage", "advice"),
    [(HALF_MADE, "Move the file away"), (OUTDATED, "mlflow db upgrade sqlite:///")],
)
def test_such_a_database_that_holds_a_run_is_left_alone(
    store: Store, tmp_path: Path, notices: list[str], damage: tuple[str, ...], advice: str
) -> None:
    client = store.client()
    run = client.create_run(store.experiment_id(client, "digits"))
    copy = damaged_copy(store, tmp_path / "copy", *damage)
    with pytest.raises(UserError, match=advice):
        copy.prepare("digits", notices.append)
    assert copy.database is not None
    with closing(sqlite3.connect(copy.database)) as database:
        assert database.execute("SELECT run_uuid FROM runs").fetchall() == [(run.info.run_id,)]


def test_runs_of_the_old_file_store_are_pointed_out(store: Store, notices: list[str]) -> None:
    (store.root / "mlruns" / "0").mkdir(parents=True)
    (store.root / "mlruns" / "0" / "meta.yaml").write_text("name: Default")
    assert store.prepare("digits", notices.append)
    assert len(notices) == 1
    assert "--backend-store-uri sqlite:///mlflow.db" in notices[0]


class Refusing(BaseHTTPRequestHandler):
    """Answers as a server does that wants another password."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_refuses_ends_the_command_before_training(
    tmp_path: Path, notices: list[str]
) -> None:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store = Store(f"http://user:s3cr3t@127.0.0.1:{server.server_port}", tmp_path)
        with pytest.raises(UserError, match="cannot be used: .*401") as caught:
            store.prepare("digits", notices.append)
        server.shutdown()
    assert "s3cr3t" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert notices == []


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("postgresql://user:s3cr3t@127.0.0.1:9/x", "psycopg"),
        ("mysql://user:s3cr3t@127.0.0.1:9/x", "MySQLdb"),
        ("mssql://user:s3cr3t@127.0.0.1:9/x", "pyodbc"),
    ],
)
def test_a_missing_driver_is_named_before_training(
    tmp_path: Path, notices: list[str], uri: str, says: str
) -> None:
    with pytest.raises(UserError, match=f"cannot be used: .*{says}") as caught:
        Store(uri, tmp_path).prepare("digits", notices.append)
    assert "s3cr3t" not in str(caught.value)


def test_a_setting_of_mlflows_that_cannot_be_read_is_named_before_training(
    tmp_path: Path, notices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "soon")
    with pytest.raises(UserError, match="MLFLOW_HTTP_REQUEST_TIMEOUT"):
        Store("http://127.0.0.1:9", tmp_path).prepare("digits", notices.append)


def test_an_unreachable_server_is_called_once_and_told_and_no_error(
    tmp_path: Path, notices: list[str]
) -> None:
    """By default MLflow calls again and again for minutes."""
    with deaf_server(hangs_up=True) as server:
        assert not Store(server.uri, tmp_path).prepare("digits", notices.append)
    assert server.calls == 1
    (notice,) = notices
    assert server.uri in notice
