"""What only a machine with a card can show, in one run of some minutes, and one page about it.

`make gpu-check`: the contract of the attention blocks, a stopped training, compiled blocks, several
processes and the cost against tokens, each in a process of its own, so that one that crashes or
hangs takes nothing else with it.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from harness.machine.environment import ROOT
from harness.machine.files import write_text
from harness.tracking.provenance import provenance_tags

PAGE = "gpu-check.md"
Verdict = Literal["passed", "failed", "did not end in time", "needs two cards"]


@dataclass(frozen=True)
class Check:
    """One command, and what it shows where it ends with 0."""

    shows: str
    words: tuple[str, ...]
    """Of Python."""
    seconds: float
    """After which it is ended."""
    shown: bool = False
    """Whether the page has all that it prints, rather than the last line."""
    cards: int = 1


@dataclass(frozen=True)
class Outcome:
    """How a check ended."""

    check: Check
    verdict: Verdict
    seconds: float
    printed: str


def checks(device: str, cards: int, folder: Path) -> list[Check]:
    """All checks, the cheapest first.

    Args:
        device: `cuda`, or `cpu` to try the checks themselves.
        cards: processes that train together where a check wants several.
        folder: for what they write.
    """

    def test(path: str, *more: str) -> tuple[str, ...]:
        return ("-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{path}", *more)

    def ablation(name: str, scale: str, *fields: str) -> tuple[str, ...]:
        where = ("--runs-dir", str(folder / name), f"train.device={device}")
        return ("-m", "harness", "ablation", "baselines", "--scale", scale, "--seeds", "1", *where,
                *fields)  # fmt: skip

    together = f"cluster.processes_per_trial={cards}"
    half = "train.precision=bf16-mixed"
    tokens = ("256", "1024", "4096", "16384") if device == "cuda" else ("64", "256")
    return [
        Check(
            "every attention block and its gradients equal the naive form",
            test("models/attention/test_contract.py", "-k", device),
            120,
        ),
        Check(
            "a training that was stopped goes on bitwise",
            test("harness/training/test_preemption.py"),
            90,
        ),
        Check("all baselines train, sample and are measured", ablation("plain", "smoke"), 120),
        Check(
            "so they do in bf16 with compiled blocks",
            ablation("compiled", "smoke", "train.compile=true", half),
            180,
        ),
        *(
            Check(
                f"so they do on {cards} cards with {strategy}",
                ablation(strategy, "smoke", together, f"train.strategy={strategy}"),
                120,
                cards=2,
            )
            for strategy in ("ddp", "fsdp")
        ),
        Check(
            "cost of attention against tokens",
            ("-m", "benchmarks", "attention", "--device", device, "--precision", "bf16",
             "--batch", "8", "--seconds", "2", "--tokens", *tokens,
             "--output", str(folder / "attention")),
            150,
            shown=True,
        ),
        Check(
            "speed of training and sampling at size S",
            ablation("size-S", "smoke", "model.size=S", half),
            120,
            shown=True,
        ),
    ]  # fmt: skip


def run_checks(
    planned: list[Check], cards: int, folder: Path, seconds: float, say: Callable[[str], None]
) -> list[Outcome]:
    """Run one check after the other, and write the page anew after each.

    Args:
        planned: in this order.
        cards: that the machine has; a check that wants more is left out.
        folder: of the page, and of a log a check.
        seconds: of all; what is not begun by then did not end in time.
        say: told how each check ended.
    """
    began = time.monotonic()
    outcomes: list[Outcome] = []
    for number, check in enumerate(planned, start=1):
        limit = min(check.seconds, seconds - (time.monotonic() - began))
        outcomes.append(
            _run(check, limit, folder, folder / f"{number}.log")
            if cards >= check.cards
            else Outcome(check, "needs two cards", 0.0, "")
        )
        write_text(folder / PAGE, page(outcomes))
        say(f"{number}/{len(planned)}  {outcomes[-1].verdict}: {check.shows}")
    return outcomes


def _run(check: Check, limit: float, folder: Path, log: Path) -> Outcome:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder.absolute()}/mlflow.db"}
    began = time.monotonic()
    verdict: Verdict = "did not end in time"
    with log.open("w") as stream:
        if limit > 0:
            process = subprocess.Popen(
                [sys.executable, *check.words],
                cwd=ROOT,
                env=environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                verdict = "failed" if process.wait(timeout=limit) else "passed"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return Outcome(check, verdict, time.monotonic() - began, log.read_text(errors="replace"))


def page(outcomes: list[Outcome]) -> str:
    """The Markdown page: what machine it was, a line a check, and what the benchmarks printed."""
    lines = [
        f"# {device_name()}",
        "",
        *(f"- {name}: {value}" for name, value in provenance_tags(ROOT).items()),
        f"- CUDA: {torch.version.cuda or 'none'}",
        "",
        "| check | outcome | seconds |",
        "|---|---|---|",
        *(f"| {o.check.shows} | {o.verdict} | {o.seconds:.0f} |" for o in outcomes),
    ]
    for outcome in outcomes:
        if outcome.check.shown or outcome.verdict == "failed":
            text = outcome.printed.strip()
            kept = text if outcome.verdict == "passed" else "\n".join(text.splitlines()[-30:])
            lines += ["", f"## {outcome.check.shows}", "", "```text", kept, "```"]
    return "\n".join(lines) + "\n"


def device_name() -> str:
    """The card with its memory, or that there is none."""
    if not torch.cuda.is_available():
        return "No GPU"
    properties = torch.cuda.get_device_properties(0)
    count = torch.cuda.device_count()
    return f"{count} x {properties.name}, {properties.total_memory / 2**30:.0f} GiB"


def run(options: argparse.Namespace) -> int:
    """Run all checks.

    Returns:
        0, or 1 where one failed or did not end.
    """
    from harness.machine.place import choose_device

    device = choose_device(options.device, "--device").type
    cards = torch.cuda.device_count() if device == "cuda" else 2
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    planned = checks(device, cards, folder.absolute())
    outcomes = run_checks(planned, cards, folder, options.seconds, print)
    print(folder / PAGE)
    return int(any(o.verdict in ("failed", "did not end in time") for o in outcomes))
