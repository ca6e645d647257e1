"""What a worker tells its parent of a job's progress, over a real connection."""

from __future__ import annotations

from multiprocessing import Pipe

import pytest

from harness.processes import worker
from harness.processes.progress import Progress


@pytest.fixture(autouse=True)
def _no_report_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is."""
    monkeypatch.setattr(worker, "REPORT_INTERVAL_SECONDS", 3600.0)


def sent(*reports: Progress) -> list[tuple[str, int, int]]:
    """What arrives of reports that are made one after another."""
    own, parents = Pipe()
    messages = []
    with own, parents:
        reporter = worker.JobReporter(lambda message: worker.send(own, message))
        for report in reports:
            reporter.report(report)
        while parents.poll():
            message = worker.receive(parents)
            assert message is not None
            messages.append(message["progress"])
    return [(message["stage"], message["done"], message["total"]) for message in messages]


def test_of_many_reports_the_first_and_the_last_of_a_stage_are_sent() -> None:
    steps = [Progress("train", done, 500) for done in range(1, 501)]
    assert sent(*steps) == [("train", 1, 500), ("train", 500, 500)]


def test_a_stage_that_comes_again_at_once_is_told_from_its_beginning_to_its_end() -> None:
    """Features of samples follow those of real images."""
    real = [Progress("features", done, 50) for done in (8, 16, 50)]
    fewer = [Progress("features", done, 37) for done in (8, 16, 37)]
    expected = [("features", 8, 50), ("features", 50, 50)]
    assert sent(*real, *fewer) == [*expected, ("features", 8, 37), ("features", 37, 37)]
    assert sent(*real, *real) == [*expected, *expected]
