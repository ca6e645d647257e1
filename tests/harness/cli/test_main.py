from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.machine.environment import EXPERIMENTS, ROOT


def harness(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def test_help_needs_none_of_the_heavy_libraries() -> None:
    probe = (
        "import sys, harness.cli.main\n"
        "try: harness.cli.main.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'mlflow', 'pandas', 'pytorch_lightning', 'diffusers', 'rich'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "ablation" in done.stdout
    # The promise is 2 seconds; a busy machine gets some more.
    assert time.perf_counter() - began < 6


@pytest.mark.parametrize(
    "command", ["ablation", "list", "config", "report", "probe", "export", "convert"]
)
def test_every_command_explains_itself(command: str) -> None:
    done = harness(command, "--help")
    assert done.returncode == 0
    assert "usage: harness" in done.stdout


def test_list_shows_every_ablation_scale_and_variant_with_its_question() -> None:
    done = harness("list")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    for folder in ("ablation", "scale"):
        for path in (EXPERIMENTS / folder).glob("*.yaml"):
            (line,) = [line for line in lines if line.split()[:1] == [path.stem]]
            assert len(line.split()) > 3
    for path in (ROOT / "models" / "attention").glob("*.py"):
        if path.stem not in ("__init__", "base"):
            assert any(line.split()[:1] == [path.stem] for line in lines)


def test_config_prints_every_trial_and_writes_nothing(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    done = harness("config", "no_differential", "--seeds", "3", "--runs-dir", str(runs))
    assert done.returncode == 0
    assert done.stdout.count("\n---\n") == 9
    assert "digits/dydila/seed2-" in done.stdout
    assert not runs.exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["ablation", "no_diferential"], "did you mean no_differential?"),
        (["ablation", "no_differential", "--scale", "digit"], "did you mean digits?"),
        (["ablation", "no_differential", "train.stpes=5"], "did you mean train.steps?"),
        (["ablation", "no_differential", "train.steps=many"], "train.steps: got 'many'"),
        (["ablation", "no_differential", "train.steps"], "expected key=value"),
        (["ablation", "no_differential", "--seeds", "0"], "seeds: got 0"),
        (["ablation", "../../etc/passwd"], "unknown ablation"),
        (["ablation", "no_differential", "--cluster", "locl"], "did you mean local?"),
        (["ablation", "no_differential", "attention.name=snaa"], "did you mean sana?"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], line: str, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    done = harness(*arguments, "--runs-dir", str(runs))
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert not runs.exists()


def test_all_mistakes_are_told_at_once() -> None:
    done = harness("ablation", "nodifferential", "--scale", "digts", "train.stpes=5")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 3


def test_a_report_of_nothing_says_which_command_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    done = harness("report", "no_differential", "--runs-dir", str(tmp_path / "runs"))
    assert done.returncode == 2
    assert "make ablation EXP=no_differential" in done.stderr
    assert "Traceback" not in done.stderr
