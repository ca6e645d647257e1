from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from harness.evaluation.cost import measure_peak_memory

MEBIBYTE = 2**20


def can_reset() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


@pytest.mark.skipif(not can_reset(), reason="this system does not let a process reset its peak")
def test_memory_that_was_given_back_still_counts_but_only_in_its_block() -> None:
    before = psutil.Process().memory_info().rss
    with measure_peak_memory("cpu") as large:
        np.ones(256 * MEBIBYTE, dtype=np.uint8).sum()
    with measure_peak_memory("cpu") as small:
        np.ones(1 * MEBIBYTE, dtype=np.uint8).sum()
    assert large.bytes is not None
    assert small.bytes is not None
    assert large.bytes > before + 200 * MEBIBYTE
    assert small.bytes < large.bytes - 200 * MEBIBYTE
    assert large.kind == "resident memory of the process"


def test_nothing_is_reported_before_the_block_ends() -> None:
    with measure_peak_memory("cpu") as peak:
        assert peak.bytes is None


def test_an_error_in_the_block_is_passed_on() -> None:
    with pytest.raises(KeyError), measure_peak_memory("cpu"):
        raise KeyError


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_allocated_tensors_count() -> None:
    with measure_peak_memory("cuda") as peak:
        torch.ones(64 * MEBIBYTE, dtype=torch.uint8, device="cuda").sum()
    assert peak.bytes is not None
    assert peak.bytes >= 64 * MEBIBYTE
    assert peak.kind == "tensors allocated on the GPU"
