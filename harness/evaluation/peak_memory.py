"""The most memory that a stretch of a program held at one time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass
class PeakMemory:
    """Filled in when the measured block ends."""

    bytes: int | None
    """None where it could not be measured."""
    kind: str
    """What was measured, or why nothing was. Figures of different kinds do not compare."""


@contextmanager
def measure_peak_memory(device: torch.device | str) -> Iterator[PeakMemory]:
    """Measure the block's peak memory.

    On a GPU these are the tensors that PyTorch had allocated there; on a CPU the resident memory of
    the whole process, libraries included, which only Linux tells (man 5 proc: writing 5 to
    `clear_refs` resets `VmHWM`). Blocks must not be nested: the inner one resets the outer's peak.
    """
    device = torch.device(device)
    if device.type == "cuda":
        peak = PeakMemory(None, "tensors allocated on the GPU")
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device)
        return
    peak = PeakMemory(None, "resident memory of the process")
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError as error:
        peak.kind = f"not measured: the peak cannot be reset ({error})"
        yield peak
        return
    yield peak
    peak.bytes = _resident_peak()


def _resident_peak() -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no VmHWM")
