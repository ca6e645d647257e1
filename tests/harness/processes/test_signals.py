from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from harness.processes.progress import Progress
from harness.processes.signals import SIGNALS, StopRequest
from models.errors import Preempted


@pytest.fixture(autouse=True)
def handlers_put_back() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_remembered_and_ends_nothing(number: signal.Signals) -> None:
    stop = StopRequest()
    stop.listen()
    assert not stop.requested
    os.kill(os.getpid(), number)
    assert stop.requested
    assert stop.reason == number.name


def test_the_first_signal_is_the_reason() -> None:
    stop = StopRequest()
    stop.listen()
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.reason == "SIGUSR1"


def test_signals_are_taken_back_only_by_who_had_them() -> None:
    stop, bystander = StopRequest(), StopRequest()
    stop.listen()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    bystander.listen_again()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    stop.listen_again()
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested


def test_a_listener_between_batches_stops_after_it_has_told() -> None:
    heard: list[Progress] = []
    stop = StopRequest()
    report = stop.between_batches(heard.append)
    report(Progress("sample", 1, 9))
    stop.reason = "SIGTERM"
    with pytest.raises(Preempted, match="stopped by SIGTERM at sample 2/9"):
        report(Progress("sample", 2, 9))
    assert heard == [Progress("sample", 1, 9), Progress("sample", 2, 9)]
