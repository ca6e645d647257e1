"""The GPUs of this machine, by nvidia-smi."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence

NVIDIA_SMI_TIMEOUT_SECONDS = 30

GPU_LINE = re.compile(r"^GPU \d+: .*\(UUID: (?P<uuid>GPU-[^)]+)\)")

MIG_LINE = re.compile(r"^\s+MIG .*\(UUID: (?P<uuid>MIG-[^)]+)\)")


def parse_gpu_list(listing: str) -> tuple[str, ...]:
    """The UUIDs in the output of `nvidia-smi -L`; a GPU that is cut into MIG slices counts as its
    slices."""
    gpus: list[list[str]] = []
    for line in listing.splitlines():
        if gpu := GPU_LINE.match(line):
            gpus.append([gpu["uuid"]])
        elif (part := MIG_LINE.match(line)) and gpus:
            gpus[-1].append(part["uuid"])
    return tuple(name for whole, *parts in gpus for name in (parts or [whole]))


def select_visible(installed: Sequence[str], visible: str | None) -> tuple[str, ...]:
    """The entries of CUDA_VISIBLE_DEVICES (`visible`; None where unset) that CUDA would take.

    CUDA stops at the first entry that names no device, and takes an abbreviated UUID.
    Source: CUDA C++ Programming Guide, CUDA environment variables.
    """
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


def visible_gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs this process may use, as entries of CUDA_VISIBLE_DEVICES; needs no torch."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        listing = subprocess.run(
            [tool, "-L"],
            capture_output=True,
            text=True,
            check=True,
            timeout=NVIDIA_SMI_TIMEOUT_SECONDS,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return select_visible(parse_gpu_list(listing), os.environ.get("CUDA_VISIBLE_DEVICES"))
