from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from harness.ablation.report import rebuild_report
from harness.machine.mlflow_client import URI_VARIABLE
from tests.reports.conftest import StoredAblation


def test_a_rebuilt_report_tells_what_its_figures_lack(
    new_store: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = StoredAblation(new_store(tmp_path), "small", tmp_path)
    stored.trial("a", 0, {"fd_net": 8.0})
    stored.finish("a")
    monkeypatch.setenv(URI_VARIABLE, stored.uri)
    console = Console(file=io.StringIO(), width=40)
    rebuild_report(stored.ablation, stored.scale, tmp_path / "runs", console)
    told = console.file.getvalue().splitlines()
    assert "! samples.png lacks a: its run holds no grid.npz." in told
    assert "! No training_curves.png: no validation loss was logged." in told
    assert told[-1].endswith("table.md")
