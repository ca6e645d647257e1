"""Commands that print a Frechet distance of two folders, timed in turns as processes of their own.

They are `harness evaluate`, torch-fidelity's `fidelity` and `python -m pytorch_fid`, with the same
images, Inception weights, threads and batch size.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.machine.environment import THREAD_VARIABLES
from harness.machine.files import read_json
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from models.errors import UserError

OURS = "harness evaluate"

_PYTORCH_FID_WEIGHTS = Path("hub", "checkpoints", "pt_inception-2015-12-05-6726825d.pth")
"""Below TORCH_HOME; the only place where pytorch-fid looks."""

_LAST_LINES = 3


@dataclass(frozen=True)
class Comparison:
    """What all tools are given."""

    samples: Path
    """A folder of images, without folders in it."""
    reference: Path
    """A folder of the same form."""
    images: int
    """How many both folders hold together."""
    weights: Path
    """Inception weights in the layout that all three tools read."""
    batch_size: int
    threads: int
    device: str
    """cpu or cuda."""


@dataclass(frozen=True)
class Tool:
    """A command that prints or writes a Frechet distance of two folders."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    figure: Callable[[str], float]
    """Finds the distance in what the command printed."""


@dataclass(frozen=True)
class ToolSpeed:
    """How long a tool took, from its start to its end."""

    name: str
    figure: float
    """The distance that it found."""
    seconds: tuple[float, ...]
    """One entry a round."""
    processor_seconds: tuple[float, ...]
    """Of all threads and processes of the tool, one entry a round: little changed by what else
    runs."""
    features_per_second: float
    """Images of both folders over the median of the seconds, all that a tool does in them."""
    ratios: tuple[float, ...]
    """Its seconds over ours, one entry a round; above 1 ours is faster."""
    processor_ratios: tuple[float, ...]
    """Its processor seconds over ours, one entry a round."""


def available_tools(comparison: Comparison, scratch: Path) -> tuple[list[Tool], list[str]]:
    """Ours first and the others that are installed, and a line on each that is not.

    Args:
        comparison: what they are given.
        scratch: a folder for what they need or write.
    """
    tools, skipped = [_ours(comparison, scratch / "ours.json")], []
    fidelity = Path(sys.executable).with_name("fidelity")
    command = str(fidelity) if fidelity.is_file() else shutil.which("fidelity")
    if command is None:
        skipped.append("torch-fidelity is skipped: its command `fidelity` is not installed")
    else:
        tools.append(_torch_fidelity(comparison, command))
    if importlib.util.find_spec("pytorch_fid") is None:
        skipped.append("pytorch-fid is skipped: it is not installed (pip install pytorch-fid)")
    else:
        tools.append(_pytorch_fid(comparison, scratch / "torch-home"))
    return tools, skipped


def measure_evaluation(
    tools: Sequence[Tool],
    comparison: Comparison,
    *,
    rounds: int,
    on_progress: ProgressListener = ignore_progress,
) -> tuple[ToolSpeed, ...]:
    """Run all tools, turn by turn, in an order that turns from round to round.

    Args:
        tools: the first is the one that ratios are taken to.
        comparison: what they were made for.
        rounds: how often each runs, at least 1.
        on_progress: told after each run.

    Raises:
        UserError: a tool fails; the message ends with its last lines.
    """
    seconds: dict[str, list[float]] = {tool.name: [] for tool in tools}
    processor: dict[str, list[float]] = {tool.name: [] for tool in tools}
    figures: dict[str, float] = {}
    for turn in range(rounds):
        first = turn % len(tools)
        for place, tool in enumerate([*tools[first:], *tools[:first]]):
            began, busy = time.perf_counter(), _processor_seconds()
            printed = _run(tool, comparison.threads)
            seconds[tool.name].append(time.perf_counter() - began)
            processor[tool.name].append(_processor_seconds() - busy)
            figures[tool.name] = tool.figure(printed)
            done = turn * len(tools) + place + 1
            on_progress(Progress(tool.name, done, rounds * len(tools)))
    first_tool = tools[0].name
    return tuple(
        ToolSpeed(
            name=name,
            figure=figures[name],
            seconds=tuple(taken),
            processor_seconds=tuple(processor[name]),
            features_per_second=comparison.images / statistics.median(taken),
            ratios=_ratios(taken, seconds[first_tool]),
            processor_ratios=_ratios(processor[name], processor[first_tool]),
        )
        for name, taken in seconds.items()
    )


def _ratios(theirs: Sequence[float], ours: Sequence[float]) -> tuple[float, ...]:
    return tuple(their / our for their, our in zip(theirs, ours, strict=True))


def _processor_seconds() -> float:
    """Processor seconds of all child processes that have ended, and of their children."""
    used = os.times()
    return used.children_user + used.children_system


def _run(tool: Tool, threads: int) -> str:
    environment = {
        **os.environ,
        **tool.environment,
        **dict.fromkeys(THREAD_VARIABLES, str(threads)),
    }
    ran = subprocess.run(tool.command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        said = " / ".join((ran.stderr or ran.stdout).strip().splitlines()[-_LAST_LINES:])
        raise UserError(
            f"{tool.name} ended with exit status {ran.returncode}: {said}; the command was "
            f"{' '.join(tool.command)}"
        )
    return ran.stdout


def _ours(comparison: Comparison, out: Path) -> Tool:
    def figure(_: str) -> float:
        report = read_json(out)
        (value,) = report["figures"].values()
        return float(value)

    return Tool(
        OURS,
        (
            *(sys.executable, "-m", "harness", "evaluate"),
            *("--samples", str(comparison.samples), "--reference", str(comparison.reference)),
            *("--extractor", "inception", "--extractor-weights", str(comparison.weights)),
            *("--metrics", "fd", "--resamples", "0", "--json", str(out)),
            *("--batch-size", str(comparison.batch_size), "--device", comparison.device),
        ),
        {},
        figure,
    )


def _torch_fidelity(comparison: Comparison, command: str) -> Tool:
    def figure(printed: str) -> float:
        return float(json.loads(printed[printed.index("{") :])["frechet_inception_distance"])

    return Tool(
        "torch-fidelity",
        (
            *(command, "--fid", "--json", "--silent", "--no-cache"),
            *(("--cpu",) if comparison.device == "cpu" else ("--gpu", "0")),
            *("--input1", str(comparison.samples), "--input2", str(comparison.reference)),
            *("--feature-extractor-weights-path", str(comparison.weights)),
            *("--batch-size", str(comparison.batch_size)),
        ),
        {},
        figure,
    )


def _pytorch_fid(comparison: Comparison, torch_home: Path) -> Tool:
    place = torch_home / _PYTORCH_FID_WEIGHTS
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(comparison.weights.resolve())

    def figure(printed: str) -> float:
        found = re.search(r"FID:\s*(\S+)", printed)
        if found is None:
            raise UserError(f"pytorch-fid printed no figure, but {printed.strip()!r}")
        return float(found[1])

    return Tool(
        "pytorch-fid",
        (
            *(sys.executable, "-m", "pytorch_fid"),
            *(str(comparison.samples), str(comparison.reference)),
            *("--batch-size", str(comparison.batch_size), "--device", comparison.device),
        ),
        {"TORCH_HOME": str(torch_home)},
        figure,
    )
