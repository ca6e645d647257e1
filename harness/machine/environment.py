"""What a process finds around it: the repository's folders, cores, library versions.

Cores are counted as a container counts them: a process that starts a thread for each core of a
large machine of which it may use two spends its time on switching between them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

EXPERIMENTS = ROOT / "experiments"

RUNS = ROOT / "runs"
"""Where trials and reports are, unless a command is told otherwise."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""What the numeric libraries read as they are loaded; the first one also speaks for a user."""


_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Logical cores that this process may use: affinity and container quota respected.

    A quota of one and a half cores counts as two, as in joblib: rounded down, half a core is lost.
    """
    counts = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    quota = cpu_quota(_CGROUPS)
    if quota is not None:
        counts.append(math.ceil(quota))
    return max(1, min(counts))


def cpu_quota(cgroups: Path) -> float | None:
    """How many cores' time the container's control group allows; None where nothing is limited.

    Args:
        cgroups: where the kernel shows the groups. Version 2 has `cpu.max` ("quota period", both in
            microseconds, or "max"), version 1 a file for each (Linux' admin-guide/cgroup-v2 and
            scheduler/sched-bwc).
    """
    with suppress(OSError, ValueError):
        if (cgroups / "cpu.max").exists():
            quota, period = map(float, (cgroups / "cpu.max").read_text().split())
        else:
            quota = float((cgroups / "cpu/cpu.cfs_quota_us").read_text())
            period = float((cgroups / "cpu/cpu.cfs_period_us").read_text())
        if quota > 0 and period > 0:
            return quota / period
    return None


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """By name; those that are not installed are left out."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
