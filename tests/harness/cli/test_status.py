"""The commands that look at an ablation, on files as trials leave them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from harness.ablation.status import results_of
from harness.cli.main import main
from harness.config.load import load_ablation
from harness.machine.environment import EXPERIMENTS
from harness.processes.status import STATUS_FILE
from tests.support.processes.lock_holder import held_lock
from tests.support.stand_ins.finished import FINISHED

NAME = "no_differential"


@pytest.fixture
def results(tmp_path: Path) -> dict[str, Path]:
    ablation = load_ablation(
        NAME, scale="smoke", seeds=2, overrides=[], experiments_dir=EXPERIMENTS
    )
    found = results_of(ablation, tmp_path)
    for path in found.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    return found


def call(command: str, runs_dir: Path, *more: str, name: str = NAME) -> int:
    return main(
        [command, name, "--scale", "smoke", "--seeds", "2", "--runs-dir", str(runs_dir), *more]
    )


def write_status(result: Path, state: str, **fields: object) -> None:
    status = {"state": state, "host": "elsewhere", "pid": 1, "updated": time.time(), **fields}
    (result.parent / STATUS_FILE).write_text(json.dumps(status))


def rows(output: str) -> dict[str, str]:
    """Each line by its first word, with single spaces."""
    lines = (line.split() for line in output.splitlines() if line.strip())
    return {words[0]: " ".join(words[1:]) for words in lines}


def test_status_names_a_damaged_result_and_warns_of_it_once(
    results: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    damaged = results["dydila/seed0"]
    damaged.write_text(FINISHED[: len(FINISHED) // 2])
    write_status(damaged, "done")
    for _ in range(2):
        assert call("status", tmp_path) == 0
        shown = capsys.readouterr().out
        assert rows(shown)["dydila/seed0"].startswith("stopped")
        # A long path goes over several lines of the table.
        assert f"{damaged}isdamaged:" in "".join(shown.split())
    assert caplog.text.count(f"{damaged} is damaged") == 1


def test_status_shows_every_trial(
    results: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results["dydila/seed0"].write_text(FINISHED)
    write_status(results["dydila/seed1"], "failed", reason="the loss is not finite")
    write_status(results["sana/seed0"], "stopped", reason="interrupted", done=3, total=20)
    progress = {"stage": "train", "done": 5, "total": 20, "seconds_left": 75.0, "note": "loss 1"}
    write_status(results["sana/seed1"], "running", **progress)
    assert call("status", tmp_path) == 0
    shown = rows(capsys.readouterr().out)
    assert shown["dydila/seed0"] == "done"
    assert shown["dydila/seed1"] == "failed the loss is not finite"
    assert shown["sana/seed0"] == "stopped 3/20 15% interrupted"
    assert shown["sana/seed1"] == "running train 5/20 25% 1:15 loss 1"
    assert shown["no_differential/seed0"] == "waiting"
    assert shown["6"] == "trials: 1 done, 1 running, 1 stopped, 1 failed, 2 waiting"


def test_watching_ends_when_nothing_will_happen(
    results: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results["dydila/seed0"].write_text(FINISHED)
    assert call("status", tmp_path, "--watch") == 0
    assert "1 done, 5 waiting" in capsys.readouterr().out


def test_an_unknown_name_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("status", "cancel", "retry"):
        assert call(command, tmp_path, name="no_diferential") == 2
        assert "did you mean no_differential?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "cancel"])
def test_an_unknown_cluster_is_told(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(command, tmp_path, "--cluster", "slrum") == 2
    assert "did you mean slurm?" in capsys.readouterr().err


def test_cancel_says_who_runs_what_no_job_does(
    results: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("cancel", tmp_path) == 0
    assert capsys.readouterr().out == "nothing of this ablation is queued or running\n"
    with held_lock(results["sana/seed1"].parent) as holder:
        assert call("cancel", tmp_path) == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith(f"sana/seed1: process {holder.pid} on ")
        assert holder.poll() is None


@pytest.mark.parametrize("option", ["--print-sbatch", "--detach"])
def test_what_only_a_scheduler_can_do_is_refused_locally(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("ablation", tmp_path, option) == 2
    assert "--cluster slurm" in capsys.readouterr().err


def test_a_machine_without_slurm_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert call("ablation", tmp_path / "runs", "--cluster", "slurm") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sbatch is not installed here")
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "mlflow.db").exists()
