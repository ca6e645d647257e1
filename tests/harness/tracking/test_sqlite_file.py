from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from mlflow import MlflowClient

from harness.tracking.delivery import Delivery
from harness.tracking.publisher import publish_pending, run_id_of
from harness.tracking.sqlite_file import active_run_ids
from harness.tracking.store import Store
from models.errors import UserError

WriteTrial = Callable[..., Path]


def sent(store: Store, folder: Path, notices: list[str]) -> str:
    Delivery(folder, store, notices.append).send()
    run_id = run_id_of(folder, store)
    assert run_id is not None
    return run_id


def store_in(root: Path) -> Store:
    return Store(f"sqlite:///{root / 'mlflow.db'}", root)


def artifacts(client: MlflowClient, run_id: str) -> Path:
    return Path(unquote(urlparse(client.get_run(run_id).info.artifact_uri).path))


def test_a_copied_repository_keeps_its_artifacts_to_itself(
    store: Store, tmp_path: Path, write_trial: WriteTrial, notices: list[str]
) -> None:
    first = sent(store, write_trial("seed0"), notices)
    copy = store_in(tmp_path / "a copy")
    shutil.copytree(store.root, copy.root)
    before = sorted(store.root.rglob("*"))
    second = sent(copy, write_trial("seed1"), notices)
    assert sorted(path for path in store.root.rglob("*") if path.suffix != ".lock") == [
        path for path in before if path.suffix != ".lock"
    ]
    client = copy.client()
    for run_id, name in ((first, b"seed0"), (second, b"seed1")):
        folder = artifacts(client, run_id)
        assert folder.is_relative_to(copy.root)
        assert (folder / "samples.png").read_bytes() == b"picture of " + name


def test_a_moved_repository_finds_its_artifacts(
    store: Store, tmp_path: Path, write_trial: WriteTrial, notices: list[str]
) -> None:
    run_id = sent(store, write_trial(), notices)
    moved = store_in(tmp_path / "moved")
    store.root.rename(moved.root)
    folder = artifacts(moved.client(), run_id)
    assert folder.is_relative_to(moved.root)
    assert (folder / "samples.png").is_file()
    assert not store.root.exists()


def test_a_database_that_was_copied_without_artifacts_says_what_to_do(
    store: Store, tmp_path: Path, write_trial: WriteTrial, notices: list[str]
) -> None:
    sent(store, write_trial(), notices)
    copy = store_in(tmp_path / "copy")
    copy.root.mkdir()
    shutil.copyfile(store.root / "mlflow.db", copy.root / "mlflow.db")
    with pytest.raises(UserError, match=r"copied without its artifacts.*cp -r"):
        copy.client()


def test_artifacts_at_a_place_of_the_users_choice_stay(store: Store, tmp_path: Path) -> None:
    location = (tmp_path / "elsewhere").as_uri()
    store.client().create_experiment("mine", artifact_location=location)
    store.client()
    experiment = store.client().get_experiment_by_name("mine")
    assert experiment is not None
    assert experiment.artifact_location == location


def test_ids_are_those_of_runs_that_are_not_deleted(store: Store) -> None:
    client = store.client()
    experiment = store.experiment_id(client, "digits")
    kept, deleted = (client.create_run(experiment).info.run_id for _ in range(2))
    client.create_run(store.experiment_id(client, "other"))
    client.delete_run(deleted)
    assert store.database is not None
    assert active_run_ids(store.database, experiment) == store.active_run_ids(experiment) == {kept}


def test_deleted_runs_are_noticed_without_reading_the_others(
    store: Store, tmp_path: Path, write_trial: WriteTrial, notices: list[str]
) -> None:
    run_ids = [sent(store, write_trial(f"seed{seed}"), notices) for seed in range(3)]
    store.client().delete_run(run_ids[1])
    assert publish_pending(tmp_path / "runs", store, notices.append)
    again = run_id_of(tmp_path / "runs" / "digits" / "sana" / "seed1", store)
    assert again not in (None, *run_ids)
    with closing(sqlite3.connect(store.root / "mlflow.db")) as database:
        assert database.execute("SELECT COUNT(*) FROM runs").fetchone() == (4,)
