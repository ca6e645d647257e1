"""Every attention variant, found by name, in the configurations that the contract suite runs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product

import pytest
import torch
from torch import Tensor

from models.attention import build_attention, load_variant, variant_names
from models.attention.base import (
    AttentionBlock,
    AttentionConfig,
    AttentionShape,
    ValueConvolutionConfig,
)
from models.randomness import initialize

WIDTH = 64
HEADS = 4


@dataclass(frozen=True)
class Case:
    """One configuration of one variant."""

    label: str
    config: AttentionConfig

    def build(
        self,
        grid: tuple[int, int],
        convolution: int = 0,
        qk_norm: bool = False,
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
    ) -> AttentionBlock:
        """With all parameters moved away from the values at which their gradients vanish."""
        shape = AttentionShape(
            width=WIDTH,
            heads=HEADS,
            grid=grid,
            value_convolution=ValueConvolutionConfig(size=convolution, initialization="random"),
            qk_norm=qk_norm,
        )
        block = build_attention(self.config, shape)
        initialize(block, seed=1)
        stream = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.add_(0.03 * torch.randn(parameter.shape, generator=stream))
        return block.to(device, dtype)

    def tokens(
        self, grid: tuple[int, int], dtype: torch.dtype = torch.float64, device: str = "cpu"
    ) -> Tensor:
        """Random tokens (B, N, D), the same numbers in every precision."""
        stream = torch.Generator().manual_seed(3)
        shape = (2, grid[0] * grid[1], WIDTH)
        return torch.randn(shape, generator=stream, dtype=torch.float64).to(device, dtype)


# Which parts of dydila are dynamic, static or off, and how routers learn.
PARTS = {
    "projection": ("dynamic", "static"),
    "kernel": ("dynamic", "relu", "static"),
    "differential": ("dynamic", "static", "off"),
    "normalizer": ("similarity", "absolute", "unit", "difference", "none", "rms"),
    "router_gradient": ("straight_through", "gate"),
}

KERNEL_BANKS = {
    "shared_over_roles": {"kernel_sharing_roles": "shared", "gamma_spread": 1.0},
    "kernel_per_head": {"kernel_per_head": True, "lambda_spread": 0.05},
    "both_and_balanced": {
        "kernel_sharing_roles": "shared",
        "kernel_per_head": True,
        "load_balance_weight": 0.1,
    },
}


def _is_different(parts: dict[str, str]) -> bool:
    """Whether no other combination of parts is the same computation."""
    off = parts["differential"] == "off"
    unused_projector = off and parts["projection"] == "static"
    same_normalizer = off and parts["normalizer"] in ("absolute", "difference")
    routed = "dynamic" in (parts["kernel"], parts["differential"]) or (
        parts["projection"] == "dynamic" and not off
    )
    unused_gate = parts["router_gradient"] == "gate" and not routed
    return not (unused_projector or same_normalizer or unused_gate)


def _all_combinations() -> list[dict[str, str]]:
    combinations = (dict(zip(PARTS, values, strict=True)) for values in product(*PARTS.values()))
    return [parts for parts in combinations if _is_different(parts)]


def _covering_combinations() -> list[dict[str, str]]:
    """Few combinations in which every two values of different parts meet, where they can."""
    missing: set[frozenset[tuple[str, str]]] = set()
    pairs = {}
    for parts in _all_combinations():
        pairs[tuple(parts.values())] = {frozenset(pair) for pair in combinations(parts.items(), 2)}
        missing |= pairs[tuple(parts.values())]
    chosen = []
    while missing:
        best = max(pairs, key=lambda values: len(pairs[values] & missing))
        missing -= pairs[best]
        chosen.append(dict(zip(PARTS, best, strict=True)))
    return chosen


def _cases(dydila: list[dict[str, str]]) -> list[Case]:
    """The defaults of every variant, and `dydila` with these parts."""
    cases = [Case(name, load_variant(name).config()) for name in variant_names()]
    config = load_variant("dydila").config
    for name, bank in KERNEL_BANKS.items():
        cases.append(Case(f"dydila-{name}", config(**bank)))
    for parts in dydila:
        label = "-".join(("dydila", *parts.values()))
        cases.append(Case(label, config(**parts, lambda_init=0.1)))
    return cases


ALL_CASES = _cases(_all_combinations())
CASES = _cases(_covering_combinations())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `case`, `any_case` or `variant` runs for each of them."""
    for fixture, cases in (("case", CASES), ("any_case", ALL_CASES)):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, cases, ids=[case.label for case in cases])
    if "variant" in metafunc.fixturenames:
        names = variant_names()
        metafunc.parametrize("variant", [load_variant(name) for name in names], ids=names)
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
