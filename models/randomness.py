"""Random streams that depend on what they are for, and on nothing else; initial values from them.

Every random draw of a trial comes from a generator keyed by its purpose and position, such as
`generator("noise", seed, step)`. No stream depends on how many numbers another one drew, so the
noise, timesteps and data order are the same in every variant, and resuming needs no saved state.
Draws are made on the CPU, so that they are also the same on every device.

Initial values depend on the seed and on a parameter's own name only: a variant with more parameters
must not shift the values of those that it shares with the others.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod

import torch
from torch import nn


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) that is a hash of its parts, stable over processes and versions."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(*parts)`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


class SelfInitialized(ABC):
    """A module that sets initial values itself, its children's included."""

    @abstractmethod
    def initialize(self, generator: torch.Generator) -> None:
        """Set the initial values in place, drawing from `generator` alone."""


@torch.no_grad()
def initialize(model: nn.Module, seed: int) -> None:
    """Initialise a model in place: Xavier-uniform linear layers, biases of zero, then, from the
    outermost module inwards, whatever a `SelfInitialized` module asks for."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator("init", seed, name))
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for name, module in model.named_modules():
        if isinstance(module, SelfInitialized):
            module.initialize(generator("init", seed, name, "own"))
