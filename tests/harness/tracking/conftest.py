"""Stores of MLflow, and trials written to journals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.tracking.journal import Journal
from harness.tracking.store import Store

WriteTrial = Callable[..., Path]


@pytest.fixture
def make_store(new_store: Callable[[Path], str], tmp_path: Path) -> Callable[[str], Store]:
    """Makes SQLite stores, each in a folder of its own."""

    def make(name: str) -> Store:
        return Store(new_store(tmp_path / name), tmp_path / name)

    return make


@pytest.fixture
def store(make_store: Callable[[str], Store]) -> Store:
    return make_store("repository")


@pytest.fixture
def notices() -> list[str]:
    """What the user was told: pass `notices.append`."""
    return []


@pytest.fixture
def write_trial(tmp_path: Path) -> WriteTrial:
    """Writes the journal of a finished trial and gives back its folder."""

    def write(name: str = "seed0", steps: int = 3, parent: Path | None = None) -> Path:
        folder = tmp_path / "runs" / "digits" / "sana" / name
        journal = Journal(folder)
        journal.start(
            experiment="digits",
            run_name=f"sana/{name}",
            tags={"harness.variant": "sana"},
            params={"train.steps": steps},
            parent=parent,
        )
        for step in range(steps):
            journal.metrics({"train_loss": 1 / (step + 1)}, step)
        (folder / "samples.png").write_bytes(b"picture of " + name.encode())
        journal.artifact(Path("samples.png"))
        journal.end("FINISHED", "all steps done")
        journal.close()
        return folder

    return write
