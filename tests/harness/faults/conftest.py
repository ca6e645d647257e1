"""One trial that nothing disturbs, and processes for those that something does."""

from __future__ import annotations

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
    tmp_path_factory: pytest.TempPathFactory,
    trial_config: Callable[..., TrialConfig],
    new_store: Callable[[Path], str],
) -> Callable[..., Place]:
    """`new_place(folder, "train.steps=5")`: a folder with a store of its own, and its trial."""

    def make(folder: Path | None = None, *overrides: str) -> Place:
        folder = folder or tmp_path_factory.mktemp("place")
        uri = new_store(folder)
        Store(uri, folder).prepare("smoke", print)
        return Place(folder, trial_config("sana", *TINY, *overrides), uri)

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
