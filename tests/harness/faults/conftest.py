"""One trial that nothing disturbs, and processes for those that something does."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.config.schema import TrialConfig
from harness.tracking.store import Store
from tests.support.processes.killed_trials import TINY, ForkServer, Outcome, Place


@pytest.fixture(scope="session")
def forks(subprocess_environment: dict[str, Any]) -> Iterator[ForkServer]:
    server = ForkServer(subprocess_environment)
    yield server
    server.close()


@pytest.fixture(scope="session")
def new_place(
    tmp_path_factory: pytest.TempPathFactory, trial_config: Callable[..., TrialConfig]
) -> Callable[..., Place]:
    """Makes a folder with a store, and the references that all trials share."""
    blank = tmp_path_factory.mktemp("blank")
    Store(f"sqlite:///{blank / 'mlflow.db'}", blank).prepare("smoke", print)

    def make(folder: Path | None = None, *overrides: str) -> Place:
        folder = folder or tmp_path_factory.mktemp("place")
        shutil.copyfile(blank / "mlflow.db", folder / "mlflow.db")
        config = trial_config("sana", *TINY, *overrides)
        return Place(folder, config, f"sqlite:///{folder / 'mlflow.db'}")

    return make


@pytest.fixture(scope="session")
def finished(forks: ForkServer, new_place: Callable[..., Place]) -> tuple[Place, Outcome]:
    """The undisturbed trial, and how its process ended."""
    place = new_place()
    outcome = forks.run(place.task())
    assert outcome.code == 0, place.log.read_text()
    return place, outcome


@pytest.fixture(scope="session")
def undisturbed(finished: tuple[Place, Outcome]) -> Place:
    return finished[0]
