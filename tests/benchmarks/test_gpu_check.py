"""The page of a machine with a card, of checks that end in every way."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from benchmarks.__main__ import main
from benchmarks.gpu_check import PAGE, Check, checks, run_checks


def test_each_check_is_told_and_written_however_it_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sleeper = "import subprocess, time; subprocess.Popen(['sleep', '3217']); time.sleep(60)"
    planned = [
        Check("well", ("-c", "print('a table')"), 20, shown=True),
        Check("badly", ("-c", "raise SystemExit('what went wrong')"), 20),
        Check("never", ("-c", sleeper), 2),
        Check("many cards", ("-c", ""), 20, cards=2),
    ]
    outcomes = run_checks(planned, 1, tmp_path, 60, print)
    verdicts = ["passed", "failed", "did not end in time", "needs two cards"]
    assert [outcome.verdict for outcome in outcomes] == verdicts
    told = capsys.readouterr().out.splitlines()
    assert told[2] == "3/4  did not end in time: never"
    page = (tmp_path / PAGE).read_text()
    assert "| badly | failed |" in page
    assert "a table" in page
    assert "what went wrong" in page
    assert "harness.git_commit" in page
    assert not [p for p in psutil.process_iter(["cmdline"]) if "3217" in (p.info["cmdline"] or [])]


def test_what_no_time_is_left_for_is_not_begun(tmp_path: Path) -> None:
    file = tmp_path / "made"
    planned = [Check("late", ("-c", f"open({str(file)!r}, 'w')"), 20)]
    assert run_checks(planned, 1, tmp_path, 0, print)[0].verdict == "did not end in time"
    assert not file.exists()


def test_checks_run_on_the_device_and_write_into_the_folder(tmp_path: Path) -> None:
    for check in checks("cuda", 4, tmp_path):
        text = " ".join(check.words)
        assert "cuda" in text or "pytest" in text
        assert "--runs-dir" not in text or str(tmp_path) in text
        assert check.cards == 1 or "cluster.processes_per_trial=4" in text


def test_a_machine_without_a_card_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["gpu-check", "--output", str(tmp_path / "out")]) == 2
    assert "CUDA" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
