from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import Timeout

from harness.tracking.delivery import (
    Batch,
    Delivery,
    Published,
    is_complete,
    load_published,
    save_published,
)
from harness.tracking.events import (
    JOURNAL_FILE,
    PUBLISHED_FILE,
    End,
    Metrics,
    Params,
    Tags,
    run_link,
)
from harness.tracking.journal import Journal
from harness.tracking.store import Store

WriteTrial = Callable[..., Path]


def send(folder: Path, store: Store, notices: list[str]) -> str:
    Delivery(folder, store, notices.append).send()
    published = load_published(folder, store.name)
    assert published is not None
    return published.run_id


def history(store: Store, run_id: str, metric: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in store.client().get_metric_history(run_id, metric)]


def runs_of(store: Store, experiment: str = "digits") -> list[str]:
    client = store.client()
    runs = client.search_runs([store.experiment_id(client, experiment)])
    return [run.info.run_id for run in runs]


def test_a_run_arrives_whole(store: Store, write_trial: WriteTrial, notices: list[str]) -> None:
    folder = write_trial(steps=3)
    run_id = send(folder, store, notices)
    client = store.client()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "sana/seed0"
    assert run.info.start_time <= run.info.end_time
    assert run.data.params == {"train.steps": "3"}
    assert run.data.tags["harness.variant"] == "sana"
    assert run.data.tags["harness.ended_because"] == "all steps done"
    assert history(store, run_id, "train_loss") == [(0, 1.0), (1, 1 / 2), (2, 1 / 3)]
    copy = Path(client.download_artifacts(run_id, "samples.png"))
    assert copy.read_bytes() == b"picture of seed0"
    assert is_complete(folder, store.name)
    assert notices == []


def test_sending_everything_again_changes_nothing(
    store: Store, write_trial: WriteTrial, notices: list[str]
) -> None:
    folder = write_trial()
    run_id = send(folder, store, notices)
    before = store.client().get_run(run_id).to_dictionary()
    published = load_published(folder, store.name)
    assert published is not None
    save_published(folder, store.name, type(published)(published.experiment_id, run_id, 0))
    assert send(folder, store, notices) == run_id
    assert store.client().get_run(run_id).to_dictionary() == before
    assert len(history(store, run_id, "train_loss")) == 3


def test_a_lost_note_of_the_run_id_does_not_make_a_second_run(
    store: Store, write_trial: WriteTrial, notices: list[str]
) -> None:
    folder = write_trial()
    run_id = send(folder, store, notices)
    (folder / PUBLISHED_FILE).unlink()
    assert send(folder, store, notices) == run_id
    assert runs_of(store) == [run_id]


def test_a_resumed_trial_continues_its_own_run(
    store: Store, write_trial: WriteTrial, notices: list[str]
) -> None:
    folder = write_trial(steps=3)
    run_id = send(folder, store, notices)
    journal = Journal(folder)
    journal.start(experiment="digits", run_name="x", tags={}, params={"train.steps": 3})
    for step in range(1, 5):
        journal.metrics({"train_loss": 1 / (step + 1)}, step)
    assert send(folder, store, notices) == run_id
    assert store.client().get_run(run_id).info.status == "RUNNING"
    assert history(store, run_id, "train_loss") == [(s, 1 / (s + 1)) for s in range(5)]
    journal.end("KILLED", "stopped by the user")
    send(folder, store, notices)
    assert store.client().get_run(run_id).info.status == "KILLED"
    assert runs_of(store) == [run_id]


def test_a_run_deleted_by_the_user_is_filled_in_again(
    store: Store, write_trial: WriteTrial, notices: list[str]
) -> None:
    folder = write_trial()
    delivery = Delivery(folder, store, notices.append)
    delivery.send()
    deleted = runs_of(store)[0]
    store.client().delete_run(deleted)
    # The same delivery, as in the middle of a training: it learns of the deletion by the refusal.
    journal = Journal(folder)
    journal.start(experiment="digits", run_name="x", tags={}, params={})
    journal.metrics({"train_loss": 0.5}, 9)
    delivery.send()
    (new,) = runs_of(store)
    assert new != deleted
    assert [step for step, _ in history(store, new, "train_loss")] == [0, 1, 2, 9]
    assert notices == []


def test_more_than_one_request_holds_arrives_whole(
    store: Store, tmp_path: Path, notices: list[str]
) -> None:
    journal = Journal(tmp_path / "trial")
    params = {f"p{i}": i for i in range(230)}
    tags = {f"t{i}": str(i) for i in range(130)}
    journal.start(experiment="digits", run_name="r", tags=tags, params=params)
    for step in range(600):
        journal.metrics({"a": float(step), "b": -float(step)}, step)
    run_id = send(journal.folder, store, notices)
    run = store.client().get_run(run_id)
    assert run.data.params == {key: str(value) for key, value in params.items()}
    assert tags.items() <= run.data.tags.items()
    assert history(store, run_id, "a") == [(step, float(step)) for step in range(600)]
    assert history(store, run_id, "b") == [(step, -float(step)) for step in range(600)]


def test_what_the_store_refuses_is_named_and_holds_up_nothing(
    store: Store, write_trial: WriteTrial, notices: list[str]
) -> None:
    folder = write_trial()
    run_id = send(folder, store, notices)
    # A parameter that the journal does not know to be there already.
    store.client().log_param(run_id, "by_hand", "1")
    journal = Journal(folder)
    params = {"by_hand": 2, "flops": 3}
    journal.start(experiment="digits", run_name="x", tags={}, params=params)
    journal.metrics({"validation_loss": 0.25}, 9)
    send(folder, store, notices)
    run = store.client().get_run(run_id)
    assert run.data.params == {"train.steps": "3", "by_hand": "1", "flops": "3"}
    assert run.data.metrics["validation_loss"] == 0.25
    assert run.data.tags["harness.not_sent"].startswith("parameter by_hand: ")
    assert len(notices) == 1
    assert "by_hand" in notices[0]


def test_a_damaged_line_is_named_and_the_rest_is_sent(
    store: Store, write_trial: WriteTrial, notices: list[str]
) -> None:
    folder = write_trial(steps=5)
    lines = (folder / JOURNAL_FILE).read_bytes().splitlines(keepends=True)
    at = sum(len(line) for line in lines[:5])
    lines[5] = b"\0" * (len(lines[5]) - 1) + b"\n"
    (folder / JOURNAL_FILE).write_bytes(b"".join(lines))
    run_id = send(folder, store, notices)
    run = store.client().get_run(run_id)
    assert [step for step, _ in history(store, run_id, "train_loss")] == [0, 1, 3, 4]
    assert run.info.status == "FINISHED"
    assert run.data.tags["harness.not_sent"] == f"the line at byte {at}: it cannot be read"


def test_a_missing_artifact_is_named_and_the_rest_is_sent(
    store: Store, write_trial: WriteTrial, notices: list[str]
) -> None:
    folder = write_trial()
    (folder / "samples.png").unlink()
    run_id = send(folder, store, notices)
    run = store.client().get_run(run_id)
    assert run.info.status == "FINISHED"
    assert "samples.png" in run.data.tags["harness.not_sent"]
    assert is_complete(folder, store.name)


def test_an_artifact_store_out_of_order_holds_up_no_metrics(
    store: Store, write_trial: WriteTrial, notices: list[str]
) -> None:
    store.prepare("digits", notices.append)
    blocked = store.root / "mlruns"
    blocked.write_text("a file where MLflow needs a folder")
    folder = write_trial()
    run_id = send(folder, store, notices)
    client = store.client()
    assert client.get_run(run_id).info.status == "FINISHED"
    assert len(history(store, run_id, "train_loss")) == 3
    assert len(notices) == 1
    assert "samples.png" in notices[0]
    assert not is_complete(folder, store.name)
    blocked.unlink()
    Delivery(folder, store, notices.append).send_postponed()
    assert [entry.path for entry in client.list_artifacts(run_id)] == ["samples.png"]
    assert is_complete(folder, store.name)


def test_parent_and_child_find_each_other_in_every_store_and_in_any_order(
    make_store: Callable[[str], Store], write_trial: WriteTrial, tmp_path: Path, notices: list[str]
) -> None:
    parent_folder = tmp_path / "runs" / "reports" / "ablation"
    child_folder = write_trial(parent=parent_folder)
    parent = Journal(parent_folder)
    parent.start(experiment="digits", run_name="ablation", tags={}, params={})
    parent.text("trials.json", f'{{"run_id": "{run_link(child_folder, parent_folder)}"}}')
    for name, order in [
        ("one", [child_folder, parent_folder]),
        ("two", [parent_folder, child_folder]),
    ]:
        store = make_store(name)
        ids = {folder: send(folder, store, notices) for folder in order}
        client = store.client()
        assert sorted(runs_of(store)) == sorted(ids.values())
        child = client.get_run(ids[child_folder])
        assert child.data.tags["mlflow.parentRunId"] == ids[parent_folder]
        text = Path(client.download_artifacts(ids[parent_folder], "trials.json")).read_text()
        assert text == f'{{"run_id": "{ids[child_folder]}"}}'


def test_a_link_to_a_removed_trial_is_left_out(
    store: Store, write_trial: WriteTrial, tmp_path: Path, notices: list[str]
) -> None:
    trial = write_trial()
    journal = Journal(tmp_path / "ablation")
    journal.start(experiment="digits", run_name="ablation", tags={}, params={})
    link = run_link(trial, journal.folder)
    journal.tags({"text": f"<{link}>", "link": link})
    shutil.rmtree(trial)
    run = store.client().get_run(send(journal.folder, store, notices))
    assert run.data.tags["text"] == "<>"
    assert "link" not in run.data.tags


def test_two_deliveries_of_one_journal_exclude_each_other(
    store: Store, write_trial: WriteTrial, notices: list[str]
) -> None:
    folder = write_trial()
    with Delivery(folder, store, notices.append).lock(), pytest.raises(Timeout):
        Delivery(folder, store, notices.append).lock().acquire()
    Delivery(folder, store, notices.append).lock().acquire()


def test_parts_keep_within_mlflows_limits_and_lose_nothing() -> None:
    from mlflow.utils.validation import _validate_batch_log_limits

    batch = Batch()
    metrics = {f"m{i}": float(i) for i in range(1500)}
    params = {f"p{i}": str(i) for i in range(250)}
    tags = {f"t{i}": str(i) for i in range(101)}
    assert batch.take(Params(params))
    assert batch.take(Tags(tags))
    assert batch.take(Metrics(metrics, 3, 1000))
    sent = [part.entities(str) for part in batch.parts()]
    for part in sent:
        _validate_batch_log_limits(*part)
    assert {m.key: m.value for part in sent for m in part[0]} == metrics
    assert {p.key: p.value for part in sent for p in part[1]} == params
    assert {t.key: t.value for part in sent for t in part[2]} == tags
    assert {(m.step, m.timestamp) for part in sent for m in part[0]} == {(3, 1000)}


def test_a_batch_ends_where_it_is_full_or_another_kind_follows() -> None:
    batch = Batch()
    assert not batch.take(End("FINISHED", "", 0))
    taken = 0
    while batch.take(Metrics({"loss": 1.0}, taken, 0)):
        taken += 1
    assert taken == 800


def test_overlong_values_are_cut_visibly() -> None:
    batch = Batch(params={"config": "x" * 6001, "fits": "x" * 6000}, tags={"note": "y" * 9000})
    _, (config, fits), (note,) = batch.entities(str)
    assert len(config.value) == 6000
    assert config.value.endswith("x ... (cut)")
    assert fits.value == "x" * 6000
    assert len(note.value) == 8000
    assert note.value.endswith("y ... (cut)")


def test_each_store_has_its_own_entry(tmp_path: Path) -> None:
    here, there = Published("1", "aaa", 10), Published("7", "bbb", 20, postponed=(3, 5))
    save_published(tmp_path, "sqlite:///a.db", here)
    save_published(tmp_path, "http://host:5000", there)
    assert load_published(tmp_path, "sqlite:///a.db") == here
    assert load_published(tmp_path, "http://host:5000") == there
    assert [path.name for path in tmp_path.iterdir()] == [PUBLISHED_FILE]


def test_an_unreadable_file_counts_as_never_sent(tmp_path: Path) -> None:
    for content in ("", "{", "[]", json.dumps({"x": {"run_id": "a"}}), json.dumps({"x": 3})):
        (tmp_path / PUBLISHED_FILE).write_text(content)
        assert load_published(tmp_path, "x") is None


def test_a_journal_is_complete_when_sent_to_its_end_with_nothing_postponed(tmp_path: Path) -> None:
    (tmp_path / "tracking.jsonl").write_bytes(b"12345678\n")
    assert not is_complete(tmp_path, "x")
    for published, complete in [
        (Published("1", "a", 8), False),
        (Published("1", "a", 9, postponed=(0,)), False),
        (Published("1", "a", 9), True),
    ]:
        save_published(tmp_path, "x", published)
        assert is_complete(tmp_path, "x") is complete


@pytest.mark.parametrize("stolen", ["../../../secret.txt", "{tmp}/secret.txt", "link.txt"])
def test_a_journal_cannot_send_files_from_outside_its_folder(
    store: Store, tmp_path: Path, write_trial: WriteTrial, notices: list[str], stolen: str
) -> None:
    (tmp_path / "secret.txt").write_text("password")
    folder = write_trial()
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    line = {"event": "artifact", "path": stolen.format(tmp=tmp_path), "folder": ""}
    with (folder / JOURNAL_FILE).open("a") as journal:
        journal.write(json.dumps(line) + "\n")
    run_id = send(folder, store, notices)
    assert not [path for path in store.root.rglob("*") if path.name in ("secret.txt", "link.txt")]
    tags = store.client().get_run(run_id).data.tags
    assert "lies outside the folder of the run" in tags["harness.not_sent"]
    assert is_complete(folder, store.name)


def test_progress_is_written_down_once_and_not_for_every_event(
    store: Store, write_trial: WriteTrial, notices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    original = save_published

    def count(folder: Path, name: str, published: Published) -> None:
        saved.append(published)
        original(folder, name, published)

    monkeypatch.setattr("harness.tracking.delivery.save_published", count)
    send(write_trial(steps=50), store, notices)
    assert len(saved) == 2, "the run's id as it is known, and how far all came"
