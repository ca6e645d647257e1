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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.turns import ratios, take_rounds
from harness.machine.environment import THREAD_VARIABLES
from harness.machine.files import read_json
from harness.processes.progress import ProgressListener, ignore_progress
from models.errors import UserError

OURS = "harness evaluate"

_PYTORCH_FID_WEIGHTS = Path("hub", "checkpoints", "pt_inception-2015-12-05-6726825d.pth")
"""Below TORCH_HOME; the only place where pytorch-fid looks."""

_LAST_LINES = 3


@dataclass(frozen=True)
class Comparison:
    """What all tools are given."""

    folder: Path
    """Holds the folders `samples` and `reference` of images, without folders in them; what tools
    need or write goes there too."""
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
    command: Sequence[str | Path]
    environment: Mapping[str, str]
    figure: Callable[[str], float]
    """Finds the distance in what the command printed."""


@dataclass(frozen=True)
class ToolSpeed:
    """How long a tool took from its start to its end; tuples have one entry a round."""

    name: str
    figure: float
    """The distance that it found."""
    seconds: tuple[float, ...]
    processor_seconds: tuple[float, ...]
    """Of all threads and processes of the tool."""
    features_per_second: float
    """Images of both folders over the median of the seconds, all that a tool does in them."""
    ratios: tuple[float, ...]
    """Its seconds over ours; above 1 ours is faster."""
    processor_ratios: tuple[float, ...]
    """Its processor seconds over ours."""


def available_tools(given: Comparison) -> tuple[list[Tool], list[str]]:
    """Ours first and the others that are installed, and a line on each that is not."""
    samples, reference = given.folder / "samples", given.folder / "reference"
    report = given.folder / "ours.json"
    ours = (
        *(sys.executable, "-m", "harness", "evaluate", "--samples", samples),
        *("--reference", reference, "--extractor", "inception"),
        *("--extractor-weights", given.weights, "--metrics", "fd", "--resamples", "0"),
        *("--json", report, "--batch-size", str(given.batch_size), "--device", given.device),
    )
    tools = [Tool(OURS, ours, {}, lambda _: float(*read_json(report)["figures"].values()))]
    skipped = []
    beside_python = Path(sys.executable).with_name("fidelity")
    command = beside_python if beside_python.is_file() else shutil.which("fidelity")
    if command is None:
        skipped.append("torch-fidelity is skipped: its command `fidelity` is not installed")
    else:
        fidelity = (
            *(command, "--fid", "--json", "--silent", "--no-cache"),
            *(("--cpu",) if given.device == "cpu" else ("--gpu", "0")),
            *("--input1", samples, "--input2", reference),
            *("--feature-extractor-weights-path", given.weights),
            *("--batch-size", str(given.batch_size)),
        )
        tools.append(Tool("torch-fidelity", fidelity, {}, _torch_fidelitys_figure))
    if importlib.util.find_spec("pytorch_fid") is None:
        skipped.append("pytorch-fid is skipped: it is not installed (pip install pytorch-fid)")
    else:
        home = given.folder / "torch-home"
        (home / _PYTORCH_FID_WEIGHTS).parent.mkdir(parents=True, exist_ok=True)
        (home / _PYTORCH_FID_WEIGHTS).symlink_to(given.weights.resolve())
        pytorch_fid = (
            *(sys.executable, "-m", "pytorch_fid", samples, reference),
            *("--batch-size", str(given.batch_size), "--device", given.device),
        )
        environment = {"TORCH_HOME": str(home)}
        tools.append(Tool("pytorch-fid", pytorch_fid, environment, _pytorch_fids_figure))
    return tools, skipped


def measure_evaluation(
    tools: Sequence[Tool],
    given: Comparison,
    *,
    rounds: int,
    on_progress: ProgressListener = ignore_progress,
) -> tuple[ToolSpeed, ...]:
    """Run all tools so many times, turn by turn; ratios are to the first one.

    Raises:
        UserError: a tool fails; the message ends with its last lines.
    """
    work = {tool.name: partial(_run, tool, given.threads) for tool in tools}
    turns = take_rounds(work, rounds, on_progress)
    wall = {name: tuple(turn.seconds for turn in taken) for name, taken in turns.items()}
    busy = {name: tuple(turn.processor_seconds for turn in taken) for name, taken in turns.items()}
    first = tools[0].name
    return tuple(
        ToolSpeed(
            name=tool.name,
            figure=turns[tool.name][-1].result,
            seconds=wall[tool.name],
            processor_seconds=busy[tool.name],
            features_per_second=given.images / statistics.median(wall[tool.name]),
            ratios=ratios(wall[tool.name], wall[first]),
            processor_ratios=ratios(busy[tool.name], busy[first]),
        )
        for tool in tools
    )


def _run(tool: Tool, threads: int) -> float:
    limits = dict.fromkeys(THREAD_VARIABLES, str(threads))
    environment = {**os.environ, **tool.environment, **limits}
    ran = subprocess.run(tool.command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        said = " / ".join((ran.stderr or ran.stdout).strip().splitlines()[-_LAST_LINES:])
        raise UserError(
            f"{tool.name} ended with exit status {ran.returncode}: {said}; the command was "
            f"{' '.join(map(str, tool.command))}"
        )
    return tool.figure(ran.stdout)


def _torch_fidelitys_figure(printed: str) -> float:
    return float(json.loads(printed[printed.index("{") :])["frechet_inception_distance"])


def _pytorch_fids_figure(printed: str) -> float:
    found = re.search(r"FID:\s*(\S+)", printed)
    if found is None:
        raise UserError(f"pytorch-fid printed no figure, but {printed.strip()!r}")
    return float(found[1])
