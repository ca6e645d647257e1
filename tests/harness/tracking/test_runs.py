from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config.load import Trial
from harness.config.schema import TrialConfig
from harness.tracking.publisher import publish_pending, run_id_of, wait_published
from harness.tracking.runs import (
    AblationMember,
    ParentRun,
    ablation_folder,
    ablation_folders,
    list_trials,
    list_trials_again,
    members_table,
)
from harness.tracking.store import Store

WriteTrial = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return ablation_folder(tmp_path / "runs", "digits", "no_kernel", ["h1", "h0"])


def write_floor(folder: Path) -> Path:
    path = folder.parents[4] / "references" / "floor-x.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"metrics": {"fd_x": 3.5}, "identity": {"extractor": "x"}}')
    return path


def listed(store: Store, run_id: str) -> dict[str, Any]:
    """What the store holds of the trials that an ablation compares."""
    path = store.client().download_artifacts(run_id, "trials.json")
    content: dict[str, Any] = json.loads(Path(path).read_text())
    return content


def begun(folder: Path, store: Store, notices: list[str]) -> ParentRun:
    run = ParentRun(folder, store, notices.append)
    run.start(
        "ablation",
        scale="digits",
        name="no_kernel",
        question="Does the dynamic kernel matter?",
        tags={"harness.baseline": "dydila"},
    )
    return run


def record(
    folder: Path, store: Store, members: list[AblationMember], table: Path, notices: list[str]
) -> str | None:
    run = begun(folder, store, notices)
    list_trials(run.journal, members, write_floor(folder))
    run.note("| a |\n|---|\n| 1 |\n\n" + members_table(members, folder))
    run.artifact(table)
    assert run.end("FINISHED", "all trials finished", timeout=60)
    return run.run_id


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "reports" / "digits" / "no_kernel" / "table.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("variant,seed\n")
    return path


@pytest.fixture
def members(
    write_trial: WriteTrial, folder: Path, trial_config: Callable[..., TrialConfig]
) -> list[AblationMember]:
    first = Trial("digits", "dydila", trial_config("dydila"))
    second = Trial("digits", "sana", trial_config("sana", seed=1))
    return [
        AblationMember(first, write_trial("seed0", parent=folder), reused=False),
        AblationMember(second, write_trial("seed1"), reused=True),
    ]


def test_the_folder_depends_on_the_set_of_trials_only(tmp_path: Path, folder: Path) -> None:
    def of(hashes: list[str], ablation: str = "no_kernel") -> Path:
        return ablation_folder(tmp_path / "runs", "digits", ablation, hashes)

    assert of(["h0", "h1"]) == of(["h1", "h0", "h1"]) == folder
    assert len({of(["h0", "h1"]), of(["h0"]), of(["h0", "h2"]), of(["h0", "h1"], "other")}) == 4


def test_the_parent_says_what_it_compares_and_where(
    store: Store,
    folder: Path,
    members: list[AblationMember],
    table: Path,
    tmp_path: Path,
    notices: list[str],
) -> None:
    run_id = record(folder, store, members, table, notices)
    trial_ids = wait_published([member.folder for member in members], store, notices.append)
    assert run_id is not None
    client = store.client()
    run = client.get_run(run_id)
    expected = {
        "harness.kind": "ablation",
        "harness.ablation": "no_kernel",
        "harness.scale": "digits",
        "harness.question": "Does the dynamic kernel matter?",
        "harness.baseline": "dydila",
        "harness.git_commit": "not a git checkout",
    }
    assert expected.items() <= run.data.tags.items()
    assert run.info.status == "FINISHED"
    assert listed(store, run_id) == {
        "trials": [
            {"variant": variant, "seed": seed, "hash": m.trial.hash, "run_id": trial_ids[m.folder]}
            for m, variant, seed in zip(members, ("dydila", "sana"), (0, 1), strict=True)
        ],
        "floor_file": "../../../../../references/floor-x.json",
        "floor": {"fd_x": 3.5},
        "floor_identity": {"extractor": "x"},
    }
    note = run.data.tags["mlflow.note.content"]
    assert "| 1 |" in note
    assert f"| sana | 1 | {trial_ids[members[1].folder]} | reused |" in note
    assert f"| dydila | 0 | {trial_ids[members[0].folder]} | trained for this ablation |" in note
    assert Path(client.download_artifacts(run_id, "table.csv")).read_text() == "variant,seed\n"
    child = client.get_run(str(trial_ids[members[0].folder]))
    assert child.data.tags["mlflow.parentRunId"] == run_id
    assert notices == []


def test_the_same_set_of_trials_continues_the_same_run(
    store: Store, folder: Path, members: list[AblationMember], table: Path, notices: list[str]
) -> None:
    first = record(folder, store, members, table, notices)
    table.write_text("variant,seed,fd\n")
    assert record(folder, store, members, table, notices) == first
    client = store.client()
    copy = Path(client.download_artifacts(str(first), "table.csv"))
    assert copy.read_text() == "variant,seed,fd\n"
    runs = client.search_runs(
        [store.experiment_id(client, "digits")], "tags.`harness.kind` = 'ablation'"
    )
    assert [run.info.run_id for run in runs] == [first]


def test_trials_that_began_after_they_were_listed_get_their_run_when_they_are_listed_again(
    store: Store,
    folder: Path,
    tmp_path: Path,
    write_trial: WriteTrial,
    notices: list[str],
    trial_config: Callable[..., TrialConfig],
) -> None:
    later = tmp_path / "runs" / "digits" / "sana" / "seed0"
    run = begun(folder, store, notices)
    floor_file = tmp_path / "runs" / "references" / "floor-x.json"
    trial = Trial("digits", "sana", trial_config("sana"))
    list_trials(run.journal, [AblationMember(trial, later, reused=False)], floor_file)
    run.leave(timeout=60)
    run_id = str(run.run_id)
    before = listed(store, run_id)
    assert (before["trials"][0]["run_id"], before["floor"]) == ("", {})
    assert write_trial("seed0", parent=folder) == later
    assert write_floor(folder) == floor_file
    assert ablation_folders(tmp_path / "runs", "digits", "no_kernel") == [folder]
    list_trials_again(folder)
    found = wait_published([folder, later], store, notices.append)
    after = listed(store, run_id)
    assert after["trials"][0]["run_id"] == found[later] is not None
    assert after["floor"] == {"fd_x": 3.5}


def test_of_a_finished_ablation_nothing_is_recorded_again(
    store: Store, folder: Path, members: list[AblationMember], table: Path, notices: list[str]
) -> None:
    record(folder, store, members, table, notices)
    before = (folder / "tracking.jsonl").read_bytes()
    list_trials_again(folder)
    assert (folder / "tracking.jsonl").read_bytes() == before


def test_a_fresh_store_gets_the_links_of_its_own_runs(
    make_store: Callable[[str], Store],
    folder: Path,
    members: list[AblationMember],
    table: Path,
    tmp_path: Path,
    notices: list[str],
) -> None:
    record(folder, make_store("first"), members, table, notices)
    # Replaced by another set's report since: the run keeps its own.
    table.write_text("another table")
    fresh = make_store("fresh")
    assert publish_pending(tmp_path / "runs", fresh, notices.append)
    client = fresh.client()
    run_id = str(run_id_of(folder, fresh))
    assert [trial["run_id"] for trial in listed(fresh, run_id)["trials"]] == [
        run_id_of(member.folder, fresh) for member in members
    ]
    assert Path(client.download_artifacts(run_id, "table.csv")).read_text() == "variant,seed\n"
    child = client.get_run(str(run_id_of(members[0].folder, fresh)))
    assert child.data.tags["mlflow.parentRunId"] == run_id
