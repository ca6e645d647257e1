"""Several processes at one store, from the first moment on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.tracking.publisher import find_journals, run_id_of
from harness.tracking.store import Store
from tests.support.processes.mlflow_server import Server

REPOSITORY = Path(__file__).parents[3]
PROCESSES = 8
BATCHES = 50

# Imported before the fork: eight imports of MLflow would take longer than the test itself.
PROGRAM = """
import os, sys, time, traceback
from pathlib import Path
from harness.tracking.journal import Journal
from harness.machine.mlflow_client import configure_mlflow
from harness.tracking.publisher import Publisher
from harness.tracking.store import Store

def write(number):
    store = Store(sys.argv[1], Path(sys.argv[2]))
    assert store.prepare("digits", print)
    journal = Journal(Path(sys.argv[2]) / "runs" / f"seed{number}")
    journal.start(experiment="digits", run_name=f"seed{number}", tags={}, params={"seed": number})
    publisher = Publisher(journal.folder, store, print, interval=0.001)
    publisher.start()
    for step in range(int(sys.argv[4])):
        journal.metrics({"train_loss": number + step / 1000, "gradient_norm": 1.0}, step)
        time.sleep(0.02)
    journal.end("FINISHED")
    assert publisher.close(timeout=120)

configure_mlflow()
import mlflow.store.tracking.sqlalchemy_store
children = []
for number in range(int(sys.argv[3])):
    child = os.fork()
    if child == 0:
        try:
            write(number)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


@pytest.mark.slow
def test_eight_processes_on_an_empty_folder_lose_nothing(tmp_path: Path) -> None:
    write_and_compare(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)


@pytest.mark.slow
def test_eight_processes_at_a_fresh_server_lose_nothing(
    tmp_path: Path, blank_database: Path
) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "mlflow.db").write_bytes(blank_database.read_bytes())
    server = Server(tmp_path / "server", tmp_path / "server" / "mlflow.db")
    server.start()
    try:
        write_and_compare(server.uri, tmp_path)
    finally:
        server.kill()


def write_and_compare(uri: str, tmp_path: Path) -> None:
    """Write from all processes at once, and compare what the store has."""
    arguments = [uri, str(tmp_path), str(PROCESSES), str(BATCHES)]
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    store = Store(uri, tmp_path)
    client = store.client()
    folders = find_journals(tmp_path / "runs")
    runs = client.search_runs([store.experiment_id(client, "digits")])
    assert {run.info.run_id for run in runs} == {run_id_of(folder, store) for folder in folders}
    assert len(runs) == PROCESSES
    for run in runs:
        assert run.info.status == "FINISHED"
        number = int(run.data.params["seed"])
        history = client.get_metric_history(run.info.run_id, "train_loss")
        expected = [(step, number + step / 1000) for step in range(BATCHES)]
        assert [(metric.step, metric.value) for metric in history] == expected
    # A locked database is waited for in silence.
    assert "Traceback" not in result.stderr
