"""Initial values that depend on the seed and on a parameter's own name only.

A variant with more parameters must not shift the initial values of the ones it shares with the
others, so each module draws from a generator of its own, keyed by its qualified name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from models.randomness import generator


class SelfInitialized(ABC):
    """A module that sets initial values itself, its children's included."""

    @abstractmethod
    def initialize(self, generator: torch.Generator) -> None:
        """Set the initial values in place, drawing from `generator` alone."""


@torch.no_grad()
def initialize(model: nn.Module, seed: int) -> None:
    """Initialise a model in place: Xavier-uniform linear layers with zero bias, then, from the
    outermost module inwards, whatever a `SelfInitialized` module asks for."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator("init", seed, name))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, module in model.named_modules():
        if isinstance(module, SelfInitialized):
            module.initialize(generator("init", seed, name, "own"))
