"""What the layers of a trial's configuration may hold, whoever resolves them."""

from __future__ import annotations

from collections.abc import Sequence

from harness.config.merge import overrides_layer
from harness.config.mistakes import Mistake
from harness.config.yaml_source import Node

CLUSTER = "cluster"
SEED = "seed"


def trial_overrides(overrides: Sequence[str], mistakes: list[Mistake]) -> Node:
    """The overrides as a layer, without those of `cluster.`, which are left to `load_cluster`."""
    layer = overrides_layer(overrides, mistakes)
    return Node({k: node for k, node in layer.entries().items() if k != CLUSTER}, layer.origin)


def refuse_seeds(layers: Sequence[Node], expected: str, mistakes: list[Mistake]) -> None:
    """A layer holds for all trials, and each trial has its own seed.

    Args:
        layers: to be looked through.
        expected: where seeds are given instead, for the message.
        mistakes: where it goes.
    """
    for layer in layers:
        seed = layer.find((SEED,))
        if seed is not None:
            problem = "each trial has its own seed"
            mistakes.append(Mistake(seed.origin, SEED, problem, expected))
