"""What a user types after `make` reaches the command as it stands, and nothing in it is run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.__main__ import COMMANDS
from harness.machine.environment import ROOT

STANDS_IN = """#!/bin/bash
printf '%s\\n' "$@" > arguments
exit 2
"""

GOALS = (
    *("--keep-going", "ablation", "search", "report", "config", "status", "cancel", "retry"),
    *("benchmark", "list", "ui", "help"),
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The Makefile beside a virtual environment whose python writes what it is given to a file."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STANDS_IN)
    python.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


def make(repository: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        ["make", "PYTHON=python3", *words],
        cwd=repository,
        env=inherited | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def given(repository: Path) -> list[str]:
    return (repository / "arguments").read_text().splitlines()


def test_the_words_of_set_are_overrides_and_quotes_hold_spaces_together(repository: Path) -> None:
    done = make(
        repository, "ablation", "EXP=lit", "SEEDS=3", "SET=train.steps=5 'data.path=/my images'"
    )
    assert done.returncode == 2  # the command's own exit code
    assert given(repository) == [
        *("-m", "harness", "ablation", "lit", "--scale=digits", "--seeds=3"),
        *("train.steps=5", "data.path=/my images", "--cluster=local"),
    ]


@pytest.mark.parametrize(
    "typed",
    ["; touch seen", '"; touch seen; "', "$(touch seen)", "$(shell touch seen)", "`touch seen`"],
)
@pytest.mark.parametrize("place", ["arguments", "environment"])
def test_nothing_that_is_typed_is_run(typed: str, place: str, repository: Path) -> None:
    names = ("EXP", "SCALE", "CLUSTER", "SEEDS", "SET", "SEARCH", "TRIALS", "KIND", "PORT")
    variables = dict.fromkeys(names, typed)
    if place == "arguments":
        make(repository, *GOALS, *(f"{name}={value}" for name, value in variables.items()))
    else:
        make(repository, *GOALS, **variables)
    assert not (repository / "seen").exists()


def test_odd_characters_of_a_name_reach_the_command(repository: Path) -> None:
    make(repository, "config", "EXP=a b", "SCALE=c'$x")
    assert given(repository)[2:] == ["config", "a b", "--scale=c'$x"]


def test_a_report_is_of_the_seeds_and_overrides_that_are_typed(repository: Path) -> None:
    make(repository, "report", "EXP=lit", "SEEDS=5", "SET=train.steps=5")
    assert given(repository)[2:] == [
        "report",
        "lit",
        "--scale=digits",
        "--seeds=5",
        "train.steps=5",
    ]


def test_a_quote_that_is_not_closed_is_told_and_nothing_runs(repository: Path) -> None:
    done = make(repository, "ablation", "EXP=lit", "SET=data.path='/my images")
    assert done.returncode == 2
    assert "a quote is not closed" in done.stderr
    assert not (repository / "arguments").exists()


def test_an_ablation_without_a_name_says_what_to_type(repository: Path) -> None:
    done = make(repository, "status")
    assert done.returncode == 2
    assert "make status EXP=no_differential" in done.stderr


def test_a_benchmark_gets_the_words_of_set(repository: Path) -> None:
    make(repository, "benchmark", "KIND=profile", "SET=sana --output '/my traces/sana.json'")
    expected = ["-m", "benchmarks", "profile", "sana", "--output", "/my traces/sana.json"]
    assert given(repository) == expected


def test_a_benchmark_without_a_kind_says_which_there_are(repository: Path) -> None:
    done = make(repository, "benchmark")
    assert done.returncode == 2
    told, _, kinds = done.stderr.splitlines()[0].partition("; ")
    assert told.endswith("make benchmark KIND=attention")
    assert set(re.findall(r"[\w-]+", kinds)) - {"and", "are", "there"} == {c.name for c in COMMANDS}
