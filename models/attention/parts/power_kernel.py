"""Kernel functions phi that take the place of the exponential in linear attention.

`phi_g(z) = ||relu(z)|| * relu(z)^g / ||relu(z)^g||` keeps the norm of a row and sharpens its
direction as g grows. Source: FLatten (fixed g), DyDiLA (g chosen for each token).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.attention.parts.routing import InitialFactors, LearnsFactor, Router, RouterLearning
from models.randomness import SelfInitialized


class _PowerKernel(torch.autograd.Function):
    """The map and its derivatives in closed form, by base-2 logarithms and powers, which a CPU
    computes in a third of the time of natural ones.

    Autograd through the formula would keep a dozen tensors; this keeps the logarithm of the row
    over its peak, and the output.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, exponents: Tensor) -> Tensor:
        tiny = _tiny(rows)
        # A row without a positive entry becomes zero; the bounds keep its divisions finite.
        peak = rows.amax(dim=-1, keepdim=True).clamp_min_(tiny)
        ratio = rows.div(peak).relu_()
        scale = torch.linalg.vector_norm(ratio, dim=-1, keepdim=True).mul_(peak)
        # Of zero a logarithm takes ten times as long. What stands for it has powers of zero.
        logarithm = ratio.clamp_min_(tiny).log2_()
        torch.threshold_(logarithm, math.log2(tiny) + 1e-3, -1e5)
        reused = None if any(ctx.needs_input_grad) else logarithm
        powered = torch.mul(logarithm, exponents[..., None], out=reused).exp2_()
        powered_norm = torch.linalg.vector_norm(powered, dim=-1, keepdim=True).clamp_min_(tiny)
        output = powered.mul_(scale / powered_norm)
        ctx.save_for_backward(logarithm, output, scale, peak, exponents)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        logarithm, output, scale, peak, exponents = ctx.saved_tensors
        tiny = _tiny(output)
        scale = scale.clamp_min(torch.finfo(scale.dtype).tiny)
        across = gradient * output
        along = across.sum(dim=-1, keepdim=True).div_(scale).div_(scale)
        # Of the direction's derivative, what is left after projecting out the direction itself.
        work = output * along
        across.addcmul_(work, output, value=-1.0)
        torch.clamp_min(logarithm, math.log2(tiny), out=work)
        ratio = work.exp2()
        to_exponents = None
        if ctx.needs_input_grad[1]:
            to_exponents = work.mul_(across).sum(dim=-1).mul_(math.log(2.0))
        # Where the row is zero, so is `across`.
        to_rows = across.mul_(exponents[..., None] / peak).div_(ratio)
        return to_rows.addcmul_(ratio, along.mul_(peak)), to_exponents


def _tiny(like: Tensor) -> float:
    """Positive, and as far above the smallest normal number that its reciprocal is finite."""
    return 1e4 * torch.finfo(like.dtype).tiny


def power_kernel(rows: Tensor, exponents: Tensor) -> Tensor:
    """The norm-preserving power map.

    Rows (..., d) are divided by their largest entry before the power of positive exponents (...),
    so neither large nor tiny rows leave the range of float32, and a row without a positive entry
    maps to zero with a zero gradient.
    """
    result: Tensor = _PowerKernel.apply(rows, exponents)
    return result


class FixedPower(nn.Module):
    """`phi_g` with one exponent that is not learned."""

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, rows: Tensor) -> Tensor:
        return power_kernel(rows, rows.new_full((), self.exponent).expand(rows.shape[:-1]))


@dataclass(frozen=True)
class ExponentMap:
    """An exponent as `floor + map(x)` of a parameter x, with a gradient wherever x is.

    Below an exponent of 1 the derivative of `phi_g` is unbounded near zero, at 0 every positive
    entry counts alike, and below it the smallest ones count most.
    """

    floor: float
    name: Literal["softplus", "exp"]

    LEAST = 0.05
    """How far above the floor exponents start that are asked to start at it, where none learns."""

    def exponents(self, parameters: Tensor) -> Tensor:
        """The exponents, all above the floor, of parameters of any shape."""
        above = F.softplus(parameters) if self.name == "softplus" else parameters.exp()
        return self.floor + above

    def parameters(self, exponents: Tensor) -> Tensor:
        """The parameters of exponents; the inverse of `exponents` from `LEAST` above the floor."""
        above = (exponents - self.floor).clamp_min(self.LEAST)
        return above.expm1().log() if self.name == "softplus" else above.log()


class ChosenPower(nn.Module, SelfInitialized, LearnsFactor):
    """`phi_g` with one of n learnable exponents, chosen for each row by its own router.

    The initial exponents lie above the map's floor. `heads` of H gives each head of rows
    (B, N, H, d) exponents and a router of its own; 1 shares both between them.
    """

    def __init__(
        self,
        head_dim: int,
        initial: InitialFactors,
        exponent_map: ExponentMap,
        learning: RouterLearning,
        heads: int = 1,
    ) -> None:
        super().__init__()
        self.initial = initial
        self.exponent_map = exponent_map
        self.router = Router(head_dim, initial.options, learning, heads)
        shape = (initial.options,) if heads == 1 else (heads, initial.options)
        self.raw_exponents = nn.Parameter(torch.empty(shape))

    def initialize(self, generator: torch.Generator) -> None:
        self.raw_exponents.copy_(self.exponent_map.parameters(self.initial.values()))

    @property
    def learned_factor(self) -> nn.Parameter:
        return self.raw_exponents

    @property
    def exponents(self) -> Tensor:
        """The exponents as they are used, (n,), or (H, n) where each head has its own."""
        return self.exponent_map.exponents(self.raw_exponents)

    def forward(self, rows: Tensor) -> Tensor:
        choice = self.router(rows)
        exponents = choice.of_values(self.exponents.to(rows.dtype))
        return choice.gated(power_kernel(rows, exponents))


def share_exponents(model: nn.Module) -> None:
    """Make all `ChosenPower` kernels use the first one's exponents; each keeps its router."""
    kernels = [module for module in model.modules() if isinstance(module, ChosenPower)]
    for kernel in kernels[1:]:
        kernel.raw_exponents = kernels[0].raw_exponents
