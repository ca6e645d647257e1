"""What one forward pass of a network costs, counted without computing anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


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
    """Count.

    The pass runs on fake tensors, which have shapes and no values, so the largest network costs
    neither time nor memory; the network itself is not moved and not changed. Attention by PyTorch's
    fused kernels is counted as its two matrix products.

    Args:
        backbone: called with images (1, C, H, W), timesteps (1,) and labels (1,).
        image_shape: C, H, W.
        num_classes: the label told is the last class.
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
