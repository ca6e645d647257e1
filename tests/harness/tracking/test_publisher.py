"""The background thread, against a database and against a real server that goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.tracking.delivery import Delivery, is_complete
from harness.tracking.journal import Journal
from harness.tracking.publisher import Publisher, publish_pending
from harness.tracking.store import Store
from tests.support.processes.mlflow_server import Server

REPOSITORY = Path(__file__).parents[3]
WriteTrial = Callable[..., Path]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, blank_database: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow.db").write_bytes(blank_database.read_bytes())
    server = Server(folder, folder / "mlflow.db")
    server.start()
    yield server
    server.kill()


def begun(folder: Path) -> Journal:
    journal = Journal(folder)
    journal.start(experiment="digits", run_name=folder.name, tags={}, params={"seed": 0})
    return journal


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def steps(store: Store, run_id: str | None, metric: str = "train_loss") -> list[int]:
    assert run_id is not None
    return [m.step for m in store.client().get_metric_history(run_id, metric)]


def test_metrics_appear_while_the_trial_still_runs(
    store: Store, tmp_path: Path, notices: list[str]
) -> None:
    journal = begun(tmp_path / "trial")
    publisher = Publisher(journal.folder, store, notices.append, interval=0.1)
    publisher.start()
    journal.metrics({"train_loss": 1.0}, 0)
    until(lambda: publisher.run_id and steps(store, publisher.run_id) == [0])
    journal.metrics({"train_loss": 0.5}, 1)
    until(lambda: steps(store, publisher.run_id) == [0, 1])
    assert store.client().get_run(str(publisher.run_id)).info.status == "RUNNING"
    journal.metrics({"train_loss": 0.25}, 2)
    journal.end("FINISHED")
    assert publisher.close(timeout=60)
    assert steps(store, publisher.run_id) == [0, 1, 2]
    assert store.client().get_run(str(publisher.run_id)).info.status == "FINISHED"
    assert notices == []


def test_a_trial_killed_while_publishing_resumes_its_own_run(
    store: Store, tmp_path: Path, notices: list[str]
) -> None:
    program = """
import itertools, sys, time
from pathlib import Path
from harness.tracking.journal import Journal
from harness.tracking.publisher import Publisher
from harness.tracking.store import Store
journal = Journal(Path(sys.argv[1]))
journal.start(experiment="digits", run_name="r", tags={}, params={"seed": 0})
Publisher(journal.folder, Store(sys.argv[2], Path("/")), print, interval=0.01).start()
for step in itertools.count():
    journal.metrics({"train_loss": 1.0}, step)
    print(step, flush=True)
    time.sleep(0.002)
"""
    folder = tmp_path / "trial"
    trial = subprocess.Popen(
        [sys.executable, "-c", program, str(folder), store.uri],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
    )
    assert trial.stdout is not None
    publisher = Publisher(folder, store, notices.append, interval=0.1)
    while publisher.run_id is None:
        trial.stdout.readline()
    for _ in range(100):
        last = int(trial.stdout.readline())
    os.kill(trial.pid, signal.SIGKILL)
    trial.communicate()
    first_id = publisher.run_id
    journal = begun(folder)
    publisher.start()
    for step in range(last - 50, last + 500):
        journal.metrics({"train_loss": 1.0}, step)
    journal.end("FINISHED")
    assert publisher.close(timeout=60)
    assert publisher.run_id == first_id
    assert steps(store, first_id) == list(range(last + 500))


def test_closing_while_another_process_sends_tells_the_user(
    store: Store, write_trial: WriteTrial, notices: list[str]
) -> None:
    folder = write_trial()
    with Delivery(folder, store, notices.append).lock():
        publisher = Publisher(folder, store, notices.append, interval=0.05)
        publisher.start()
        assert not publisher.close()
    assert len(notices) == 1
    assert "sent later" in notices[0]


def test_an_unreachable_server_neither_blocks_nor_loses(tmp_path: Path, notices: list[str]) -> None:
    away = Store("http://127.0.0.1:9", tmp_path)
    journal = begun(tmp_path / "trial")
    publisher = Publisher(journal.folder, away, notices.append, interval=0.05)
    publisher.start()
    slowest = 0.0
    for step in range(200):
        began = time.monotonic()
        journal.metrics({"train_loss": 1.0}, step)
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.005)
    journal.end("FINISHED")
    began = time.monotonic()
    assert not publisher.close(timeout=5)
    assert time.monotonic() - began < 7
    assert slowest < 0.5
    assert publisher.run_id is None
    assert len(notices) == 1
    assert "http://127.0.0.1:9 does not answer" in notices[0]
    assert "tracking.jsonl" in notices[0]


def test_a_remote_run_has_metrics_and_artifacts(
    server: Server, write_trial: WriteTrial, tmp_path: Path, notices: list[str]
) -> None:
    store = Store(server.uri, tmp_path)
    assert store.prepare("digits", notices.append)
    parent = begun(tmp_path / "runs" / "reports" / "ablation")
    folder = write_trial(steps=1200, parent=parent.folder)
    for journal_folder in (folder, parent.folder):
        publisher = Publisher(journal_folder, store, notices.append)
        publisher.start()
        until(lambda done=journal_folder: is_complete(done, store.name))
        assert publisher.close(timeout=60)
    client = store.client()
    found = client.search_runs([store.experiment_id(client, "digits")])
    runs = {run.info.run_name: run for run in found}
    child = runs["sana/seed0"]
    assert child.info.status == "FINISHED"
    assert steps(store, child.info.run_id) == list(range(1200))
    assert len(list((server.folder / "artifacts").rglob("samples.png"))) == 1
    assert child.data.tags["mlflow.parentRunId"] == runs["ablation"].info.run_id
    assert notices == []


def lived_through(
    server: Server, tmp_path: Path, notices: list[str], name: str, leave: int
) -> None:
    """A trial that logs every 10 ms while the server goes away and comes back."""
    store = Store(server.uri, tmp_path)
    folder = tmp_path / name
    journal = begun(folder)
    publisher = Publisher(folder, store, notices.append, interval=0.2)
    publisher.start()
    step, slowest = 0, 0.0

    def train(until_told: int) -> None:
        nonlocal step, slowest
        deadline = time.monotonic() + 60
        while len(notices) < until_told or step % 50:
            began = time.monotonic()
            assert began < deadline
            journal.metrics({"train_loss": 1.0}, step)
            slowest = max(slowest, time.monotonic() - began)
            step += 1
            time.sleep(0.01)

    until(lambda: publisher.run_id)
    train(until_told=0)
    server.signal(leave)
    train(until_told=1)
    assert "does not answer" in notices[0]
    assert str(folder) in notices[0]
    if leave == signal.SIGKILL:
        server.kill()
        server.start()
    else:
        server.signal(signal.SIGCONT)
    train(until_told=2)
    assert "answers again" in notices[1]
    journal.end("FINISHED")
    assert publisher.close(timeout=60)
    assert len(notices) == 2
    assert slowest < 0.5
    assert steps(store, publisher.run_id) == list(range(step))
    run = store.client().get_run(str(publisher.run_id))
    assert run.info.status == "FINISHED"
    named = store.client().search_runs([run.info.experiment_id], f"run_name = '{name}'")
    assert [found.info.run_id for found in named] == [publisher.run_id]


def test_nothing_is_lost_when_a_server_stops_answering(
    server: Server, tmp_path: Path, notices: list[str]
) -> None:
    lived_through(server, tmp_path, notices, "frozen", signal.SIGSTOP)


@pytest.mark.slow
def test_nothing_is_lost_when_a_server_is_killed_and_started_again(
    server: Server, tmp_path: Path, notices: list[str]
) -> None:
    lived_through(server, tmp_path, notices, "killed", signal.SIGKILL)


@pytest.mark.slow
def test_an_ablation_begun_off_line_is_whole_once_the_server_is_there(
    server: Server, write_trial: WriteTrial, tmp_path: Path, notices: list[str]
) -> None:
    server.kill()
    store = Store(server.uri, tmp_path)
    assert not store.prepare("digits", notices.append)
    parent = begun(tmp_path / "runs" / "reports" / "ablation")
    folder = write_trial(parent=parent.folder)
    publisher = Publisher(folder, store, notices.append)
    publisher.start()
    assert not publisher.close()
    parent.end("FINISHED")
    assert not publish_pending(tmp_path / "runs", store, notices.append)
    server.start()
    assert publish_pending(tmp_path / "runs", store, notices.append)
    parents = Publisher(parent.folder, store, notices.append)
    run = store.client().get_run(str(publisher.run_id))
    assert run.data.tags["mlflow.parentRunId"] == parents.run_id
    assert steps(store, publisher.run_id) == [0, 1, 2]
