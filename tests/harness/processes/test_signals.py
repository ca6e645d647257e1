from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from harness.processes.progress import Progress
from harness.processes.signals import (
    ECHO_SECONDS,
    INTERRUPTING,
    PREEMPTING,
    Interrupted,
    StopRequest,
    ignore_signal,
    stop_on_signals,
    terminated_like_interrupted,
)
from models.errors import Preempted


@pytest.fixture(autouse=True)
def handlers_put_back() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (*PREEMPTING, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [*PREEMPTING, signal.SIGINT])
def test_a_signal_is_remembered_and_ends_nothing(number: signal.Signals) -> None:
    stop = StopRequest()
    stop.listen([number], ignore_signal)
    assert not stop.requested
    os.kill(os.getpid(), number)
    assert stop.requested
    assert stop.reason == number.name
    assert stop.number == number
    with pytest.raises(Preempted, match=f"stopped by {number.name} at step 3"):
        stop.check("at step 3")


def test_the_first_signal_is_the_reason() -> None:
    stop = StopRequest()
    stop.listen(PREEMPTING, ignore_signal)
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.reason == "SIGUSR1"


def test_a_signal_that_comes_again_at_once_counts_once_and_later_as_the_second() -> None:
    second: list[signal.Signals] = []
    stop = StopRequest()
    stop.listen(INTERRUPTING, second.append)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    assert second == []
    time.sleep(ECHO_SECONDS + 0.1)
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert second == [signal.SIGTERM]


def test_a_request_by_message_makes_a_signal_the_second() -> None:
    second: list[signal.Signals] = []
    stop = StopRequest()
    stop.listen(INTERRUPTING, second.append)
    stop.request("SIGINT")
    time.sleep(ECHO_SECONDS + 0.1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.reason == "SIGINT"
    assert second == [signal.SIGTERM]


def test_a_second_signal_to_a_command_raises_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        time.sleep(ECHO_SECONDS + 0.1)
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_was_ignored_before_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.requested


def test_sigterm_unwinds_what_has_nothing_to_save() -> None:
    with pytest.raises(Interrupted), terminated_like_interrupted():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_fork_ends_by_the_signal_as_it_would_without_a_handler() -> None:
    stop = StopRequest()
    stop.listen(INTERRUPTING, ignore_signal)
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    time.sleep(0.2)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
    assert not stop.requested


def test_signals_are_taken_back_only_by_who_had_them() -> None:
    stop, bystander = StopRequest(), StopRequest()
    stop.listen(PREEMPTING, ignore_signal)
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
    stop.request("SIGTERM")
    with pytest.raises(Preempted, match="stopped by SIGTERM at sample 2/9"):
        report(Progress("sample", 2, 9))
    assert heard == [Progress("sample", 1, 9), Progress("sample", 2, 9)]
