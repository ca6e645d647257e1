from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness.tracking.delivery import Delivery, is_complete
from harness.tracking.journal import Journal
from harness.tracking.publisher import find_journals, publish_pending, run_id_of, wait_published
from harness.tracking.store import Store

REPOSITORY = Path(__file__).parents[3]
WriteTrial = Callable[..., Path]


def test_what_earlier_commands_left_is_sent(
    store: Store, write_trial: WriteTrial, tmp_path: Path, notices: list[str]
) -> None:
    folders = [write_trial(f"seed{seed}") for seed in range(3)]
    assert publish_pending(tmp_path / "runs", store, notices.append)
    assert all(is_complete(folder, store.name) for folder in folders)
    assert len({run_id_of(folder, store) for folder in folders}) == 3
    assert len(notices) == 1
    assert "3 runs" in notices[0]


def test_nothing_pending_is_quick_and_says_nothing(
    store: Store, write_trial: WriteTrial, tmp_path: Path, notices: list[str]
) -> None:
    assert publish_pending(tmp_path / "no_runs_yet", store, notices.append)
    write_trial()
    assert publish_pending(tmp_path / "runs", store, notices.append)
    began = time.monotonic()
    assert publish_pending(tmp_path / "runs", store, notices.append)
    assert time.monotonic() - began < 1
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


def test_a_server_away_is_told_once_and_quickly(
    write_trial: WriteTrial, tmp_path: Path, notices: list[str]
) -> None:
    for seed in range(3):
        write_trial(f"seed{seed}")
    began = time.monotonic()
    away = Store("http://127.0.0.1:9", tmp_path)
    assert not publish_pending(tmp_path / "runs", away, notices.append)
    assert time.monotonic() - began < 10
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
        assert 0.4 < time.monotonic() - began < 3


def test_empty_journals_are_no_pending_runs(
    store: Store, tmp_path: Path, notices: list[str]
) -> None:
    Journal(tmp_path / "runs" / "trial").close()
    assert find_journals(tmp_path / "runs") == [tmp_path / "runs" / "trial"]
    assert publish_pending(tmp_path / "runs", store, notices.append)
    assert notices == []
