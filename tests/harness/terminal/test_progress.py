from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.processes.progress import Progress
from harness.terminal.progress import ProgressView


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(*reports: tuple[float, Progress], terminal: bool = False) -> str:
    """What is printed of reports, each so many seconds after the last."""
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, width=100, force_terminal=terminal, force_interactive=terminal)
    with ProgressView(console, clock=clock) as view:
        for seconds, report in reports:
            clock.now += seconds
            view(report)
    return out.getvalue()


def at(done: int, note: str = "") -> Progress:
    return Progress("encode", done, 1000, note)


def test_speed_and_time_left_do_not_count_what_was_there_before() -> None:
    # 100 images in 50 s; 200 are left.
    text = shown((0, at(700)), (50, at(800)))
    assert text.splitlines() == ["encode  700/1000", "encode  800/1000  2.0 images/s  1:40 left"]


def test_lines_come_seldom_and_at_the_end() -> None:
    text = shown((0, at(0)), *[(1, at(10 * number)) for number in range(1, 101)])
    amounts = [line.split()[1] for line in text.splitlines()]
    assert amounts == ["0/1000", "300/1000", "600/1000", "900/1000", "1000/1000"]


def test_a_note_is_shown_once() -> None:
    waiting = at(0, "waiting for 2 shards that other processes encode")
    text = shown((0, at(0)), (1, waiting), (1, waiting), (1, waiting))
    assert text.count("waiting for 2 shards") == 1


def test_a_process_that_is_behind_another_does_not_take_back_what_was_shown() -> None:
    text = shown((0, at(0)), (40, at(500)), (40, at(300)), (40, at(600)))
    assert [line.split()[1] for line in text.splitlines()] == ["0/1000", "500/1000", "600/1000"]


@pytest.mark.parametrize("done", [0, 1000])
def test_a_first_report_has_no_speed(done: int) -> None:
    assert shown((0, at(done))).strip() == f"encode  {done}/1000"


def test_a_terminal_has_a_bar_with_the_same_figures() -> None:
    text = shown((0, at(700)), (50, at(800)), terminal=True)
    for part in ("encode", "800/1000", "2.0 images/s", "1:40 left", "\x1b["):
        assert part in text


def test_another_stage_begins_anew() -> None:
    second = (Progress("read", done, 10) for done in (0, 10))
    text = shown((0, at(0)), (50, at(1000)), *((2, report) for report in second))
    assert text.splitlines()[-2:] == ["read  0/10", "read  10/10  5.0 images/s  0:00 left"]


def test_the_terminal_is_given_back_after_an_error() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)

    def fail() -> None:
        with ProgressView(console) as view:
            view(Progress("read", 1, 2))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    # The cursor, hidden while the bar moves.
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
