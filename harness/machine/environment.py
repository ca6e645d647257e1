"""What a process finds around it: the repository's folders, cores, GPUs, library versions."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"
RUNS = ROOT / "runs"
"""Where trials and reports are, unless a command is told otherwise."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""What the numeric libraries read as they are loaded; the first one also speaks for a user."""

GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
_CGROUPS = Path("/sys/fs/cgroup")
_NVIDIA_SMI_SECONDS = 30


def usable_cores() -> int:
    """Logical cores that this process may use, by affinity and container quota: more threads than
    that spend their time on switching. A quota of one and a half cores counts as two."""
    counts = [os.cpu_count() or 1]
    if sys.platform == "linux":
        counts.append(len(os.sched_getaffinity(0)))
    if (quota := cpu_quota(_CGROUPS)) is not None:
        counts.append(math.ceil(quota))
    return max(1, min(counts))


def cpu_quota(cgroups: Path) -> float | None:
    """How many cores' time the container's control group allows; None where nothing is limited.

    Version 2 of the groups has `cpu.max` ("quota period", both in microseconds, or "max"), version
    1 a file for each (Linux' admin-guide/cgroup-v2 and scheduler/sched-bwc).
    """
    with suppress(OSError, ValueError):
        if (both := cgroups / "cpu.max").exists():
            quota, period = map(float, both.read_text().split())
        else:
            each = (cgroups / f"cpu/cpu.cfs_{name}_us" for name in ("quota", "period"))
            quota, period = (float(path.read_text()) for path in each)
        if quota > 0 and period > 0:
            return quota / period
    return None


def visible_gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs this process may use, as entries of CUDA_VISIBLE_DEVICES; needs no torch."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        done = subprocess.run(
            [tool, "-L"], capture_output=True, text=True, check=True, timeout=_NVIDIA_SMI_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return select_visible(parse_gpu_list(done.stdout), os.environ.get(GPUS_VARIABLE))


def parse_gpu_list(listing: str) -> tuple[str, ...]:
    """The UUIDs in the output of `nvidia-smi -L`; a GPU that is cut into MIG slices counts as its
    slices."""
    gpus: list[list[str]] = []
    for kind, uuid in re.findall(
        r"^(GPU \d+|[ \t]+MIG ).*\(UUID: ([^)]+)\)", listing, re.MULTILINE
    ):
        if kind.startswith("GPU"):
            gpus.append([uuid])
        elif gpus:
            gpus[-1].append(uuid)
    return tuple(name for whole, *parts in gpus for name in (parts or [whole]))


def select_visible(installed: Sequence[str], visible: str | None) -> tuple[str, ...]:
    """The entries of CUDA_VISIBLE_DEVICES (`visible`; None where unset) that CUDA would take: up to
    the first that names no device, also abbreviated UUIDs (CUDA C++ Programming Guide)."""
    if visible is None:
        return tuple(installed)
    selected: list[str] = []
    for entry in (part.strip() for part in visible.split(",")):
        by_index = entry.isdigit() and int(entry) < len(installed)
        by_uuid = entry[:4] in ("GPU-", "MIG-") and any(u.startswith(entry) for u in installed)
        if not (by_index or by_uuid) or entry in selected:
            break
        selected.append(entry)
    return tuple(selected)


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """By name; those that are not installed are left out."""
    versions = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions
