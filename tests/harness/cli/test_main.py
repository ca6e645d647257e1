from __future__ import annotations

import argparse
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from harness.cli.main import main, run_command
from harness.cli.options import Parser, command
from harness.machine.environment import EXPERIMENTS, ROOT
from harness.processes.jobs import RankFailedError


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


class Call(Protocol):
    def __call__(self, *arguments: str) -> Ended: ...


@pytest.fixture
def harness(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """`harness("list")` in this process: an import of all libraries would cost seconds."""
    monkeypatch.chdir(ROOT)

    def call(*arguments: str) -> Ended:
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as end:
            code = 0 if end.code is None else int(end.code)
        return Ended(code, *capsys.readouterr())

    return call


def test_help_needs_none_of_the_heavy_libraries() -> None:
    """Without them it comes at once."""
    probe = (
        "import sys, harness.cli.main\n"
        "try: harness.cli.main.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'mlflow', 'pandas', 'pytorch_lightning', 'diffusers', 'rich'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "ablation" in done.stdout


def test_the_module_ends_with_the_code_of_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "ablation", "no_diferential"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no_differential" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", ["ablation", "list", "config", "report", "probe", "export", "convert"]
)
def test_every_command_explains_itself(command: str, harness: Call) -> None:
    done = harness(command, "--help")
    assert done.code == 0
    assert done.out.startswith(f"usage: harness {command}")


def test_list_shows_every_ablation_scale_and_variant_with_its_question(harness: Call) -> None:
    done = harness("list")
    assert done.code == 0
    lines = done.out.splitlines()
    for folder in ("ablation", "scale"):
        for path in (EXPERIMENTS / folder).glob("*.yaml"):
            (line,) = [line for line in lines if line.split()[:1] == [path.stem]]
            assert len(line.split()) > 3
    for path in (ROOT / "models" / "attention").glob("*.py"):
        if path.stem not in ("__init__", "base"):
            assert any(line.split()[:1] == [path.stem] for line in lines)


def test_config_prints_every_trial_and_writes_nothing(tmp_path: Path, harness: Call) -> None:
    runs = tmp_path / "runs"
    done = harness("config", "no_differential", "--seeds", "3", "--runs-dir", str(runs))
    assert done.code == 0
    assert done.out.count("\n---\n") == 9
    assert "digits/dydila/seed2-" in done.out
    assert not runs.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ablation", "no_diferential"], ["no_diferential", "no_differential?"]),
        (["ablation", "no_differential", "--scale", "digit"], ["digit", "digits?"]),
        (["ablation", "no_differential", "train.stpes=5"], ["train.stpes", "train.steps?"]),
        (["ablation", "no_differential", "train.steps=many"], ["train.steps", "'many'"]),
        (["ablation", "no_differential", "train.steps"], ["train.steps", "key=value"]),
        (["ablation", "no_differential", "--seeds", "0"], ["seeds", "0"]),
        (["ablation", "../../etc/passwd"], ["../../etc/passwd"]),
        (["ablation", "no_differential", "--cluster", "locl"], ["locl", "local?"]),
        (["ablation", "no_differential", "attention.name=snaa"], ["snaa", "sana?"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], words: list[str], tmp_path: Path, harness: Call
) -> None:
    runs = tmp_path / "runs"
    done = harness(*arguments, "--runs-dir", str(runs))
    assert done.code == 2
    (line,) = done.err.splitlines()
    for word in words:
        assert word in line
    assert not runs.exists()


def test_all_mistakes_are_told_at_once(harness: Call) -> None:
    done = harness("ablation", "nodifferential", "--scale", "digts", "train.stpes=5")
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 3


def test_a_report_of_nothing_says_which_command_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harness: Call
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    done = harness("report", "no_differential", "--runs-dir", str(tmp_path / "runs"))
    assert done.code == 2
    assert "make ablation EXP=no_differential" in done.err


def test_a_process_that_was_killed_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @command()
    def lose(options: argparse.Namespace) -> int:
        """Lose a process."""
        raise RankFailedError("process 1 of 2 ended: killed by signal 9")

    parser: argparse.ArgumentParser = Parser(prog="harness")
    lose.add(parser.add_subparsers())
    assert run_command(parser, ["lose"]) == 1
    assert capsys.readouterr().err == "process 1 of 2 ended: killed by signal 9\n"


@pytest.mark.parametrize("selection", [[], ["--seeds", "1"]])
def test_a_report_from_a_server_that_does_not_answer_names_that_cause_alone(
    selection: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harness: Call
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    runs = tmp_path / "runs"
    done = harness(
        "report", "no_differential", "--scale", "smoke", "--runs-dir", str(runs), *selection
    )
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert f"cannot read the MLflow store {uri}: Connection refused" in line


def test_a_report_from_a_store_without_its_driver_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harness: Call
) -> None:
    """Runs that wait to be sent do not come first, as if a server were silent."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql+nosuchdriver://u:PW@127.0.0.1:9/runs")
    monkeypatch.setattr(
        "harness.ablation.report.publish_pending", lambda *_: pytest.fail("tried to send")
    )
    done = harness("report", "no_differential", "--runs-dir", str(tmp_path / "runs"))
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert "cannot read the MLflow store mysql+nosuchdriver://127.0.0.1:9/runs" in line
    assert "set MLFLOW_TRACKING_URI" in line
    assert "PW" not in line
