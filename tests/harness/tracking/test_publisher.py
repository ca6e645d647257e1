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
from harness.tracking.events import JOURNAL_FILE
from harness.tracking.journal import Journal
from harness.tracking.publisher import (
    Publisher,
    find_journals,
    publish_pending,
    run_id_of,
    wait_published,
)
from harness.tracking.store import Store
from tests.support.processes.deaf_server import deaf_server
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
from harness.tracking.events import JOURNAL_FILE
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


def test_an_unreachable_server_neither_blocks_nor_loses(
    tmp_path: Path, notices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    journal = begun(tmp_path / "trial")
    with deaf_server(hangs_up=False) as server:
        publisher = Publisher(
            journal.folder, Store(server.uri, tmp_path), notices.append, interval=0.05
        )
        publisher.start()
        assert server.called.wait(60)
        for step in range(200):
            journal.metrics({"train_loss": 1.0}, step)
        journal.end("FINISHED")
        # The first call is still unanswered: nothing waited for it.
        assert notices == []
        assert not publisher.close(timeout=0.5)
        (notice,) = notices
        assert server.uri in notice
        assert str(journal.folder / JOURNAL_FILE) in notice
    assert publisher.run_id is None


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
    step = 0

    def train(until_told: int) -> None:
        nonlocal step
        deadline = time.monotonic() + 60
        while len(notices) < until_told or step % 50:
            assert time.monotonic() < deadline
            journal.metrics({"train_loss": 1.0}, step)
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


def test_what_earlier_commands_left_is_sent(
    store: Store, write_trial: WriteTrial, tmp_path: Path, notices: list[str]
) -> None:
    folders = [write_trial(f"seed{seed}") for seed in range(3)]
    assert publish_pending(tmp_path / "runs", store, notices.append)
    assert all(is_complete(folder, store.name) for folder in folders)
    assert len({run_id_of(folder, store) for folder in folders}) == 3
    assert len(notices) == 1
    assert "3 runs" in notices[0]


def test_nothing_pending_says_nothing(
    store: Store, write_trial: WriteTrial, tmp_path: Path, notices: list[str]
) -> None:
    assert publish_pending(tmp_path / "no_runs_yet", store, notices.append)
    write_trial()
    assert publish_pending(tmp_path / "runs", store, notices.append)
    assert publish_pending(tmp_path / "runs", store, notices.append)
    assert notices == []


def test_another_store_is_filled_by_replay(
    make_store: Callable[[str], Store],
    write_trial: WriteTrial,
    tmp_path: Path,
    notices: list[str],
) -> None:
    folder = write_trial(steps=4)
    one, two = make_store("one"), make_store("two")
    for store in (one, two, one):
        assert publish_pending(tmp_path / "runs", store, notices.append)
        run_id = run_id_of(folder, store)
        assert run_id is not None
        assert len(store.client().get_metric_history(run_id, "train_loss")) == 4
    assert run_id_of(folder, one) != run_id_of(folder, two)


def test_a_deleted_database_is_filled_again(
    store: Store, blank_database: Path, write_trial: WriteTrial, tmp_path: Path, notices: list[str]
) -> None:
    folder = write_trial(steps=4)
    program = """
import sys
from pathlib import Path
from harness.tracking.publisher import publish_pending
from harness.tracking.store import Store
assert publish_pending(Path(sys.argv[1]), Store(sys.argv[2], Path(sys.argv[3])), print)
"""
    arguments = [str(tmp_path / "runs"), store.uri, str(store.root)]
    # In a process of its own, since MLflow keeps a database open for as long as a process lives.
    subprocess.run([sys.executable, "-c", program, *arguments], cwd=REPOSITORY, check=True)
    before = run_id_of(folder, store)
    assert store.database is not None
    assert is_complete(folder, store.name)
    store.database.write_bytes(blank_database.read_bytes())
    assert publish_pending(tmp_path / "runs", store, notices.append)
    after = run_id_of(folder, store)
    assert before is not None
    assert after is not None
    assert after != before
    assert len(store.client().get_metric_history(after, "train_loss")) == 4


def test_a_single_deleted_run_is_noticed(
    store: Store, write_trial: WriteTrial, tmp_path: Path, notices: list[str]
) -> None:
    kept, deleted = write_trial("seed0"), write_trial("seed1")
    assert publish_pending(tmp_path / "runs", store, notices.append)
    before = run_id_of(kept, store), run_id_of(deleted, store)
    assert before[1] is not None
    store.client().delete_run(before[1])
    assert publish_pending(tmp_path / "runs", store, notices.append)
    assert run_id_of(kept, store) == before[0]
    assert run_id_of(deleted, store) != before[1]


def test_a_journal_that_a_running_trial_sends_is_left_to_it(
    store: Store, write_trial: WriteTrial, tmp_path: Path, notices: list[str]
) -> None:
    folder = write_trial()
    with Delivery(folder, store, notices.append).lock():
        assert publish_pending(tmp_path / "runs", store, notices.append)
    assert run_id_of(folder, store) is None


def test_a_server_away_is_called_and_told_once(
    write_trial: WriteTrial, tmp_path: Path, notices: list[str]
) -> None:
    for seed in range(3):
        write_trial(f"seed{seed}")
    with deaf_server(hangs_up=True) as server:
        away = Store(server.uri, tmp_path)
        assert not publish_pending(tmp_path / "runs", away, notices.append)
    assert server.calls == 1
    assert sum("does not answer" in notice for notice in notices) == 1


def test_waiting_sends_what_nobody_sends_and_gives_the_run_ids(
    store: Store, write_trial: WriteTrial, tmp_path: Path, notices: list[str]
) -> None:
    folders = [write_trial("seed0"), write_trial("seed1")]
    never_started = tmp_path / "runs" / "digits" / "sana" / "seed2"
    run_ids = wait_published([*folders, never_started], store, notices.append)
    client = store.client()
    names = [client.get_run(str(run_ids[folder])).info.run_name for folder in folders]
    assert names == ["sana/seed0", "sana/seed1"]
    assert run_ids[never_started] is None


def test_waiting_ends_in_time(
    store: Store, write_trial: WriteTrial, tmp_path: Path, notices: list[str]
) -> None:
    folder = write_trial()
    with Delivery(folder, store, notices.append).lock():
        began = time.monotonic()
        assert wait_published([folder], store, notices.append, timeout=0.5) == {folder: None}
        assert time.monotonic() - began > 0.4


def test_empty_journals_are_no_pending_runs(
    store: Store, tmp_path: Path, notices: list[str]
) -> None:
    Journal(tmp_path / "runs" / "trial").close()
    assert find_journals(tmp_path / "runs") == [tmp_path / "runs" / "trial"]
    assert publish_pending(tmp_path / "runs", store, notices.append)
    assert notices == []
