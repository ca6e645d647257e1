"""Peak bytes of tensors against arithmetic, PyTorch's own tracker, and what is known to grow."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker

from harness.evaluation.tensor_memory import peak_tensor_bytes

CPU = torch.device("cpu")
KIB = 256
"""Floats of float32 in one KiB."""


def test_tensors_that_are_alive_together_are_added_and_freed_ones_are_not() -> None:
    given = torch.zeros(100 * KIB)

    def work() -> Tensor:
        first = given + 1
        second = first + 1
        del first
        return (second + 1).view(10, -1)[0]

    assert peak_tensor_bytes(work, CPU) == 2 * 100 * 1024


def test_views_and_operations_in_place_take_no_memory() -> None:
    given = torch.zeros(KIB)
    assert peak_tensor_bytes(lambda: given.view(2, -1).t().add_(1), CPU) == 0


def test_a_training_step_agrees_with_pytorchs_tracker() -> None:
    layers = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
    inputs = torch.randn(512, 64)

    def step() -> None:
        layers(inputs).square().mean().backward()
        layers.zero_grad()

    step()
    ours = peak_tensor_bytes(step, CPU)
    with MemTracker() as tracker:
        step()
    total = next(iter(tracker.get_tracker_snapshot("peak").values()))["Total"]
    weights = sum(parameter.numel() for parameter in layers.parameters()) * 4
    assert ours == total - weights


def test_memory_of_attention_grows_with_tokens_as_its_matrix_does() -> None:
    def weights(tokens: int) -> int:
        rows = torch.zeros(tokens, 8)
        return peak_tensor_bytes(lambda: (rows @ rows.T).softmax(dim=-1), CPU)

    assert weights(64) == 2 * 64 * 64 * 4
    assert weights(128) == 4 * weights(64)
