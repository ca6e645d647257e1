"""What a network and a program cost: operations, memory, images a second.

Operations are counted without computing anything.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from models.attention.parts.load_balance import balance_loss
from models.diffusion_module import DiffusionModule


@dataclass(frozen=True)
class Cost:
    """Of one forward pass on one image, without guidance."""

    parameters: int
    """Weights of the network, trained or frozen; moving averages are not counted twice."""
    macs: int
    """Multiply-adds: half of `flops`. Papers on diffusion transformers call these GFLOPs."""
    flops: int
    """Floating-point operations of matrix products, convolutions and attention, two for a
    multiply-add; elementwise work, softmax and norms are left out, as the field does."""


def model_cost(backbone: nn.Module, image_shape: tuple[int, int, int], num_classes: int) -> Cost:
    """Count a pass of images (1, C, H, W), timesteps (1,) and the last class as label (1,).

    It runs on fake tensors, which have shapes and no values, so the largest network costs neither
    time nor memory; the network itself is not moved and not changed. Attention by PyTorch's fused
    kernels is counted as its two matrix products.
    """
    counter = FlopCounterMode(display=False)
    with FakeTensorMode(), sdpa_kernel(SDPBackend.MATH), counter, torch.no_grad():
        tensors = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype)
            for name, tensor in (*backbone.named_parameters(), *backbone.named_buffers())
        }
        images, timesteps = torch.empty(1, *image_shape), torch.empty(1)
        labels = torch.full((1,), num_classes - 1)
        functional_call(backbone, tensors, (images, timesteps, labels))
    flops = counter.get_total_flops()
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    return Cost(parameters=parameters, macs=flops // 2, flops=flops)


def training_step_bytes(module: DiffusionModule, images: int, *, half: bool) -> int:
    """Bytes of tensors at the peak of one step of training, on a process with the whole network.

    Weights, their moving average and AdamW's two moments, and what the forward and backward pass
    make, gradients included. Like `model_cost`, it computes nothing, and the largest step costs
    seconds; the count is the same on every machine.

    Args:
        module: its weights are replaced by fake ones, so that it is of no use afterwards.
        images: of a micro-batch.
        half: whether the forward pass is under autocast to bf16.
    """
    backbone, objective = module.backbone, module.objective
    weights = sum(weight.nbytes for weight in backbone.parameters())
    real = objective.draw_times(images, torch.Generator())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        backbone._apply(mode.from_tensor)
        clean = torch.empty(images, *backbone.config.image_shape)
        noise, times = torch.empty_like(clean), mode.from_tensor(real)
        labels = torch.zeros(images, dtype=torch.int64)

        def step() -> None:
            mixed = objective.add_noise(clean, noise, times)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                prediction = backbone(mixed.images, mixed.timesteps, labels)
            loss = objective.loss(prediction.float(), clean, noise, times).mean()
            balance = balance_loss(backbone)
            (loss if balance is None else loss + balance).backward()

        return 4 * weights + peak_tensor_bytes(step, torch.device("cpu"))


def peak_tensor_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Bytes of the tensors that `work` makes, where most of them are alive at one time.

    Resident memory is mostly the libraries': 1.1 GiB for a network of 0.4 million parameters,
    whatever its attention. What `work` is given, such as weights and inputs, does not count;
    gradients that it leaves do. On a GPU the allocator tells, scratch space of kernels included;
    elsewhere the storages of all tensors that operations return are followed until they are freed.
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


Interval = tuple[int, float]
"""Images, and the seconds that they took."""


def images_per_second(intervals: Sequence[Interval], warmup: int) -> float | None:
    """Median images a second after `warmup` intervals; None where there is no interval at all.

    The median, since a machine that others use stalls now and then. Where there are no more
    intervals than those of the warm-up, the last one alone counts: a run of one batch has a speed
    too, a somewhat low one.

    Raises:
        ValueError: an interval without images or without duration.
    """
    if not intervals:
        return None
    if any(images < 1 or seconds <= 0 for images, seconds in intervals):
        raise ValueError("every interval needs at least one image and a positive duration")
    counted = intervals[warmup:] or intervals[-1:]
    return median(images / seconds for images, seconds in counted)
