from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.commands.stage_view import StageView
from harness.progress import Progress


def shown(console: Console, total: int) -> str:
    with StageView(console) as view:
        for done in range(1, total + 1):
            view(Progress("read", done, total))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(("total", "lines"), [(1000, 11), (3, 3), (1, 1)])
def test_a_pipe_gets_few_plain_lines(total: int, lines: int) -> None:
    text = shown(Console(file=io.StringIO(), width=80), total)
    assert text.splitlines()[-1] == f"read  {total}/{total}"
    assert len(text.splitlines()) == lines
    assert "\x1b" not in text


def test_a_terminal_gets_a_bar() -> None:
    text = shown(Console(file=io.StringIO(), width=80, force_terminal=True), 4)
    assert "\x1b" in text
    assert "4/4" in text


def test_the_terminal_is_given_back_after_an_error() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)

    def fail() -> None:
        with StageView(console) as view:
            view(Progress("read", 1, 2))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert isinstance(console.file, io.StringIO)
    # The cursor, hidden while the bar moves.
    assert console.file.getvalue().rindex("\x1b[?25h") > console.file.getvalue().rindex("\x1b[?25l")


def test_an_empty_stage_is_shown() -> None:
    console = Console(file=io.StringIO(), width=80)
    with StageView(console) as view:
        view(Progress("read", 0, 0))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "read  0/0\n"
