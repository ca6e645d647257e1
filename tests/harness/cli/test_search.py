from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.main import main
from harness.machine.environment import EXPERIMENTS


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["dydila_factor"], "unknown search 'dydila_factor'"),
        (["dydila_factors", "--scale", "digit"], "did you mean digits?"),
        (["dydila_factors", "train.stpes=5"], "did you mean train.steps?"),
        (["dydila_factors", "attention.gamma_init=2"], "is searched over, so it cannot be set"),
        (["dydila_factors", "--workers", "0"], "cluster.workers: got 0"),
        (["dydila_factors", "--cluster", "locl"], "did you mean local?"),
        (["dydila_factors", "--trials", "0"], "--trials is 0: expected a whole number >= 1"),
        (["dydila_factors", "--detach"], "add --cluster slurm"),
        (["../../etc/passwd"], "unknown search"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    code = main(["search", "--trials", "2", *arguments, "--runs-dir", str(runs)])
    told = capsys.readouterr().err.strip()
    assert code == 2
    assert line in told
    assert len(told.splitlines()) == 1
    assert not runs.exists()


def test_the_list_shows_every_search_with_its_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for path in (EXPERIMENTS / "search").glob("*.yaml"):
        (line,) = [line for line in lines if line.split()[:1] == [path.stem]]
        assert len(line.split()) > 3
