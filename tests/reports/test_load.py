from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.vocabulary import names
from harness.vocabulary.metrics import BY_KEY
from models.errors import UserError
from reports.load import load_ablation

FD = BY_KEY["fd"].recorded("efficientnet_lite0")


def test_a_row_a_finished_trial_with_metrics_and_tags(stored: Any) -> None:
    first = stored.trial("b", 0, {FD: 8.0}, curve=[(0, 2.0), (100, 0.5)])
    second = stored.trial("a", 1, {FD: 9.5, names.PARAMETERS: 1000.0})
    stored.finish("b", question="Why?", floor={FD: 3.25})
    runs = load_ablation(stored.uri, stored.ablation, stored.scale)
    assert runs.variants == ("b", "a")
    assert (runs.question, runs.baseline) == ("Why?", "b")
    assert runs.trials[["variant", "seed", "run_id"]].to_numpy().tolist() == [
        ["b", 0, first],
        ["a", 1, second],
    ]
    assert runs.values("b", FD) == {0: 8.0}
    assert runs.values("b", names.VALIDATION_LOSS) == {0: 0.5}, "the last value counts"
    assert runs.values("b", names.PARAMETERS) == {}
    assert runs.values("b", "never_logged") == {}
    assert runs.tag(names.TAG_DEVICE) == ("cpu, 2 cores",)
    assert runs.identity["samples"] == 500
    assert runs.floor.values == {FD: 3.25}
    assert runs.missing == ()


def test_missing_trials_are_named_with_the_reason(stored: Any) -> None:
    stored.trial("a", 0, {FD: 8.0})
    stored.trial("a", 1, {FD: 1.0}, status=None)
    because = {names.TAG_ENDED_BECAUSE: "the loss is nan at step 40"}
    stored.trial("b", 0, {FD: 1.0}, status="FAILED", tags=because)
    stored.trial("b", 1, {FD: 1.0}, status="KILLED", tags={names.TAG_ENDED_BECAUSE: "Ctrl-C"})
    stored.list_trial("c", 0, None)
    stored.list_trial("c", 1, "0" * 32)
    deleted = stored.trial("c", 2, {FD: 1.0})
    stored.client.delete_run(deleted)
    stored.finish("a")
    runs = load_ablation(stored.uri, stored.ablation, stored.scale)
    assert len(runs.trials) == 1
    assert runs.variants == ("a", "b", "c")
    assert {(lost.variant, lost.seed): lost.reason for lost in runs.missing} == {
        ("a", 1): "unfinished",
        ("b", 0): "failed: the loss is nan at step 40",
        ("b", 1): "stopped: Ctrl-C",
        ("c", 0): "not started",
        ("c", 1): f"its run {'0' * 32} is no longer in MLflow",
        ("c", 2): f"its run {deleted} is no longer in MLflow",
    }


def test_an_unfinished_trials_identity_does_not_matter(stored: Any) -> None:
    stored.trial("a", 0, {FD: 8.0})
    stored.trial("b", 0, {}, identity=None, status="FAILED")
    stored.finish("a")
    assert len(load_ablation(stored.uri, stored.ablation, stored.scale).trials) == 1


def test_trials_measured_differently_are_refused(stored: Any) -> None:
    stored.trial("a", 0, {FD: 8.0}, identity={"samples": 500, "steps": 50})
    stored.trial("b", 0, {FD: 9.0}, identity={"samples": 500, "steps": 10})
    stored.finish("a")
    with pytest.raises(UserError) as error:
        load_ablation(stored.uri, stored.ablation, stored.scale)
    assert "steps: 50 (a seed 0); 10 (b seed 0)" in str(error.value)
    assert "make ablation EXP=question_one" in str(error.value)


def test_infinity_is_no_figure(stored: Any) -> None:
    stored.trial("a", 0, {FD: math.inf, names.PARAMETERS: 5.0})
    stored.finish("a")
    runs = load_ablation(stored.uri, stored.ablation, stored.scale)
    assert runs.values("a", FD) == {}
    assert runs.values("a", names.PARAMETERS) == {0: 5.0}


def test_the_variants_name_is_the_ablations_and_not_the_trials(stored: Any) -> None:
    run_id = stored.trial("full", 0, {FD: 8.0})
    stored.listed.clear()
    stored.list_trial("everything", 0, run_id)
    stored.finish("everything")
    runs = load_ablation(stored.uri, stored.ablation, stored.scale)
    assert runs.values("everything", FD) == {0: 8.0}


def test_the_run_last_at_work_counts(stored: Any) -> None:
    stored.trial("a", 0, {FD: 1.0})
    older = stored.finish("a")
    stored.trial("b", 0, {FD: 2.0})
    time.sleep(0.01)
    stored.finish("a")
    time.sleep(0.01)
    stored.finish("a", ablation="question_two")
    load = load_ablation
    assert load(stored.uri, stored.ablation, stored.scale).variants == ("a", "b")
    assert load(stored.uri, stored.ablation, stored.scale, older).variants == ("a",)
    stored.client.set_terminated(older)
    assert load(stored.uri, stored.ablation, stored.scale).variants == ("a",)


def test_an_ablation_run_that_stopped_before_listing_trials_is_passed_over(stored: Any) -> None:
    stored.trial("a", 0, {FD: 1.0})
    stored.finish("a")
    time.sleep(0.01)
    stored.listed.clear()
    stored.finish("a")
    assert load_ablation(stored.uri, stored.ablation, stored.scale).variants == ("a",)


@pytest.mark.parametrize("name", ["it's", 'say "so"', "a' OR '1'='1", "100%", "back`tick", "x\\"])
def test_names_that_would_break_a_filter_find_their_own_runs(stored: Any, name: str) -> None:
    stored.trial("a", 0, {FD: 1.0})
    stored.finish("a", ablation="other")
    stored.trial("b", 0, {FD: 1.0})
    stored.finish("a", ablation=name)
    assert load_ablation(stored.uri, name, stored.scale).variants == ("a", "b")


@pytest.mark.parametrize("scale", ["same", "never seen"])
def test_an_ablation_that_never_ran_says_what_runs_it(stored: Any, scale: str) -> None:
    scale = stored.scale if scale == "same" else scale
    with pytest.raises(UserError, match=r"make ablation EXP=question_9 SCALE="):
        load_ablation(stored.uri, "question_9", scale)


def test_no_finished_trial_is_an_error_that_lists_the_reasons(stored: Any) -> None:
    stored.trial("a", 0, {}, status="FAILED", tags={names.TAG_ENDED_BECAUSE: "no disk space"})
    stored.list_trial("b", 0, None)
    stored.finish("a")
    with pytest.raises(UserError) as error:
        load_ablation(stored.uri, stored.ablation, stored.scale)
    assert "a seed 0: failed: no disk space" in str(error.value)
    assert "b seed 0: not started" in str(error.value)
    assert "make ablation EXP=question_one" in str(error.value)


def test_a_missing_store_is_named_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with pytest.raises(UserError, match=r"mlflow\.db.*make ablation EXP=x SCALE=y"):
        load_ablation(f"sqlite:///{path}", "x", "y")
    assert not path.exists()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "no such scheme://x"])
def test_a_store_that_cannot_be_read_is_one_message(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match="cannot read the MLflow store"):
        load_ablation(uri, "x", "y")


def test_a_file_that_is_no_database_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be looked at" * 40)
    with pytest.raises(UserError, match="cannot read the MLflow store"):
        load_ablation(f"sqlite:///{tmp_path / 'mlflow.db'}", "x", "y")


@pytest.mark.parametrize("listing", ["{", "[]", '{"trials": 3}', '{"trials": [{"seed": 0}]}'])
def test_a_damaged_list_of_trials_is_named(stored: Any, listing: str) -> None:
    run_id = stored.finish("a")
    stored.client.log_text(run_id, listing, names.ARTIFACT_TRIALS)
    with pytest.raises(UserError, match=rf"trials\.json.* {run_id}"):
        load_ablation(stored.uri, stored.ablation, stored.scale)


def test_reading_writes_nothing_to_the_store(stored: Any, build_runs: Callable[..., Any]) -> None:
    run_id = stored.trial("a", 0, {FD: 1.0})
    parent = stored.finish("a")
    before = [stored.client.get_run(run).to_dictionary() for run in (run_id, parent)]
    load_ablation(stored.uri, stored.ablation, stored.scale)
    assert [stored.client.get_run(run).to_dictionary() for run in (run_id, parent)] == before


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("reports.report", []),
        (
            "reports.report, reports.load, reports.comparison, reports.figures.tradeoff, "
            "reports.figures.samples, reports.figures.curves, reports.tables.markdown, "
            "reports.tables.latex, reports.tables.console",
            ["matplotlib", "pandas", "scipy"],
        ),
    ],
)
def test_nothing_of_the_harness_but_the_names_is_imported(modules: str, heavy: list[str]) -> None:
    code = (
        f"import sys, {modules}\n"
        "print(*(m for m in sys.modules if m.startswith(('harness.', 'models.'))))\n"
        "print([m for m in ('torch', 'mlflow', 'matplotlib', 'pandas', 'scipy') "
        "if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, found = ran.stdout.splitlines()
    assert found == str(heavy)
    assert set(imported.split()) <= {
        "harness.machine", "harness.machine.files", "harness.machine.mlflow_client",
        "harness.vocabulary", "harness.vocabulary.metrics", "harness.vocabulary.names",
        "models.errors",
    }  # fmt: skip
