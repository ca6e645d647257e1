"""SIGKILL of the MLflow server while trials run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.tracking.delivery import load_published
from harness.tracking.publisher import publish_pending
from tests.support.processes.killed_trials import (
    ForkServer,
    Place,
    assert_one_run,
    assert_same_trial,
    read_journal,
)
from tests.support.processes.mlflow_server import Server


@pytest.fixture
def served(new_place: Callable[..., Place]) -> Iterator[tuple[Place, Server]]:
    """A trial to be run, and the server that it writes to."""
    place = new_place()
    server = Server(place.folder, place.folder / "mlflow.db")
    server.start()
    yield replace(place, store_uri=server.uri), server
    server.kill()


@pytest.mark.slow
def test_a_trial_whose_server_is_killed_finishes_and_is_sent_later(
    forks: ForkServer, served: tuple[Place, Server], undisturbed: Place, tmp_path: Path
) -> None:
    place, server = served

    def half_has_arrived() -> bool:
        sent = load_published(place.trial, place.store.name)
        return sent is not None and sent.offset > 0

    # The server is gone when the trial goes on.
    assert forks.run(place.task(), kill_after=6, held_until=half_has_arrived).code < 0
    server.kill()
    assert forks.run(place.task()).code == 0, place.log.read_text()
    assert "does not answer" in place.log.read_text()
    assert read_journal(place.trial)[-1]["event"] == "end"
    server.start()
    notices: list[str] = []
    assert publish_pending(place.folder / "runs", place.store, notices.append)
    assert_same_trial(place, undisturbed)
    # Sent a second time, as after a lost note of what was sent, nothing is there twice.
    shutil.copyfile(place.trial / "tracking.json", tmp_path / "tracking.json")
    (place.trial / "tracking.json").unlink()
    assert publish_pending(place.folder / "runs", place.store, notices.append)
    assert_one_run(place)
