from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from harness.processes.jobs import JobEnded, JobProgressed, JobResult, JobsInterrupted, JobStarted
from harness.processes.progress import WARNING, Progress
from harness.terminal.jobs import (
    REFRESHES_PER_SECOND,
    LiveView,
    cut_middle,
    format_duration,
    job_display,
    remaining_for_all,
)


class Clock:
    """A clock that the test moves on."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def plain_lines(console_file: io.StringIO) -> list[str]:
    lines = console_file.getvalue().splitlines()
    stamp = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ")
    assert all(stamp.match(line) for line in lines)
    return [stamp.sub("", line) for line in lines]


def terminal(width: int) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, height=30, color_system=None
    )


def drawn(view: LiveView, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(view.table())
    output = console.file
    assert isinstance(output, io.StringIO)
    return [line.rstrip() for line in output.getvalue().splitlines()]


def test_a_pipe_gets_a_line_at_each_stage_and_each_quarter() -> None:
    output = io.StringIO()
    with job_display(Console(file=output, width=40), total=1) as display:
        display.event(JobStarted("sana/seed0"))
        for done in range(101):
            progress = Progress("train", done, 100, f"loss {done / 100}")
            display.event(JobProgressed("sana/seed0", progress))
        display.event(JobProgressed("sana/seed0", Progress("waiting", 0, 0, "for process 7")))
        display.event(JobProgressed("sana/seed0", Progress("sample", 66, 100)))
        display.event(JobProgressed("sana/seed0", Progress("sample", 70, 100)))
        display.event(JobProgressed("sana/seed0", Progress("sample", 80, 100)))
        display.event(JobEnded(JobResult("sana/seed0", Path("x.log"), 75.2, value=1)))
    assert plain_lines(output) == [
        "sana/seed0  started",
        "sana/seed0  train  0%  0/100  loss 0.0",
        "sana/seed0  train  25%  25/100  loss 0.25",
        "sana/seed0  train  50%  50/100  loss 0.5",
        "sana/seed0  train  75%  75/100  loss 0.75",
        "sana/seed0  train  100%  100/100  loss 1.0",
        "sana/seed0  waiting  for process 7",
        "sana/seed0  sample  66%  66/100",
        "sana/seed0  sample  80%  80/100",
        "sana/seed0  done in 1:15  [1/1]",
    ]


def test_a_failed_job_shows_one_line_with_reason_and_log() -> None:
    output = io.StringIO()
    reason = "config.yaml: [bold]key[/bold]\n  is not known"
    with job_display(Console(file=output, width=40), total=3) as display:
        display.event(JobStarted("a"))
        display.event(JobEnded(JobResult("a", Path.cwd() / "runs/a.log", 1.0, reason=reason)))
    assert plain_lines(output)[-1] == (
        "a  failed: config.yaml: [bold]key[/bold] is not known (log: runs/a.log)  [1/3]"
    )


def test_notices_and_interruptions_are_shown() -> None:
    output = io.StringIO()
    with job_display(Console(file=output), total=1) as display:
        display.notice("reused 2 finished trials")
        display.event(JobsInterrupted(("a", "b")))
    notice, interruption = plain_lines(output)
    assert notice == "reused 2 finished trials"
    assert interruption.startswith("interrupted: 2 running job(s) save and stop")


@pytest.mark.parametrize("interactive", [False, True])
def test_every_warning_of_a_job_is_a_line_that_stays(interactive: bool) -> None:
    """Also one that begins a stage anew, and the next one of the same job."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=interactive, width=120, _environ={})
    with job_display(console, total=1) as display:
        display.event(JobStarted("a"))
        for text in ("trained.json is damaged", "step-8.ckpt is damaged"):
            display.event(JobProgressed("a", Progress(WARNING, 0, 0, text)))
            display.event(JobProgressed("a", Progress("train", 1, 9)))
    for text in ("trained.json is damaged", "step-8.ckpt is damaged"):
        assert output.getvalue().count(f"a  warning: {text}") == 1
    assert Progress(WARNING, 0, 0, "b").begins_after(Progress(WARNING, 0, 0, "a"))


def test_plain_lines_are_flushed_at_once(tmp_path: Path) -> None:
    with (tmp_path / "output").open("w") as file:
        job_display(Console(file=file), total=1).notice("now")
        assert "now" in (tmp_path / "output").read_text()


def test_a_dumb_terminal_gets_plain_lines() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, _environ={"TERM": "dumb"})
    with job_display(console, total=1) as display:
        display.event(JobStarted("a"))
    assert plain_lines(output) == ["a  started"]


def test_a_terminal_shows_bars_and_keeps_ended_jobs_above_them() -> None:
    console = terminal(100)
    with job_display(console, total=2) as display:
        display.event(JobStarted("a"))
        display.event(JobProgressed("a", Progress("train", 30, 60, "loss 0.43")))
        time.sleep(3 / REFRESHES_PER_SECOND)
        display.event(JobEnded(JobResult("a", Path("a.log"), 5.0, reason="boom")))
    output = console.file
    assert isinstance(output, io.StringIO)
    text = output.getvalue()
    assert "a  failed: boom (log: a.log)" in text
    assert re.search(r"a +train +\S+ +30/60 .* loss 0.43", text)
    assert re.search(r"all +\S+ +1/2 ", text[text.index("failed: boom") :])


def test_the_remaining_time_counts_only_what_this_run_did() -> None:
    clock = Clock()
    view = LiveView(terminal(110), 4, clock)
    view.started("a")
    clock.seconds += 5
    view.progressed("a", Progress("train", 400, 600, "resumed"))
    assert "eta" not in drawn(view, 110)[0]
    clock.seconds += 20
    view.progressed("a", Progress("train", 500, 600, "loss 0.43"))
    job, overall = drawn(view, 110)
    assert re.fullmatch(r"a +train +\S+ +500/600 0:25 eta 0:20 loss 0.43", job)
    assert re.fullmatch(r"all +0/4 0:25", overall)
    view.progressed("a", Progress("sample", 0, 80))
    assert "eta" not in drawn(view, 110)[0]


def test_the_overall_line_counts_failures_and_judges_by_jobs_that_were_done() -> None:
    clock = Clock()
    view = LiveView(terminal(110), 4, clock)
    for key in ("a", "b"):
        view.started(key)
    clock.seconds += 60
    view.ended(JobResult("a", Path("a.log"), 60.0))
    view.ended(JobResult("b", Path("b.log"), 1.0, reason="boom"))
    view.started("c")
    overall = drawn(view, 110)[-1]
    assert re.fullmatch(r"all +\S+ +2/4 1:00 eta 2:00 1 failed", overall)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_figures_stay_whole_and_each_job_on_one_line(width: int) -> None:
    clock = Clock()
    view = LiveView(terminal(width), 12, clock)
    view.started("no_differential_static_kernel/seed1")
    view.progressed("no_differential_static_kernel/seed1", Progress("train", 0, 800))
    clock.seconds += 40
    note = "loss 0.4312  1512 img/s"
    view.progressed("no_differential_static_kernel/seed1", Progress("train", 400, 800, note))
    lines = drawn(view, width)
    assert len(lines) == 2
    assert all(len(line) <= width for line in lines)
    assert "seed1" in lines[0]
    assert "400/800 0:40 eta 0:40" in lines[0]


@pytest.mark.parametrize(
    ("durations", "running", "waiting", "expected"),
    [
        ([], [5.0], 3, None),
        ([60.0], [], 0, None),
        ([60.0], [0.0, 30.0], 0, 60.0),
        ([50.0, 70.0], [0.0, 60.0], 4, 150.0),
        ([60.0], [90.0], 0, 0.0),
    ],
)
def test_the_time_for_all_jobs_follows_from_the_mean_of_the_done(
    durations: list[float], running: list[float], waiting: int, expected: float | None
) -> None:
    assert remaining_for_all(durations, running, waiting) == expected


def test_durations_read_like_a_clock() -> None:
    assert [format_duration(s) for s in (0, 59.6, 75, 3675)] == ["0:00", "1:00", "1:15", "1:01:15"]


def test_a_long_key_is_cut_in_the_middle() -> None:
    assert cut_middle("short", 5) == "short"
    assert cut_middle("abcdefghij", 7) == "abc\u2026hij"
