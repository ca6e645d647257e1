"""How many bytes of tensors a piece of work has alive at its peak.

Resident memory of a process is mostly the libraries': 1.1 GiB for a network of 0.4 million
parameters, whatever its attention. Tensors are what a variant costs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_tensor_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Bytes of the tensors that `work` makes, where most of them are alive at one time.

    What it is given, such as weights and inputs, does not count; gradients that it leaves do. On a
    GPU the allocator tells, scratch space of kernels included; elsewhere the storages of all
    tensors that operations return are followed until they are freed.

    Args:
        work: called once.
        device: where its tensors are.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _StorageAccount() as account:
        work()
    return account.peak


class _StorageAccount(TorchDispatchMode):
    """Adds up the storages that operations make, each until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        operation: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # What is met as an argument first was there before.
        for tensor in _tensors((args, kwargs)):
            self._meet(tensor, counted=0)
        result = operation(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._meet(tensor, counted=tensor.untyped_storage().nbytes())
        return result

    def _meet(self, tensor: Tensor, counted: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.alive += counted
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._forget, key, counted)

    def _forget(self, key: int, counted: int) -> None:
        self._known.discard(key)
        self.alive -= counted


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
