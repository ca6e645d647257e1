"""How the routers of a network use their options: shares, dead options, entropy."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from models.attention.parts.routing import Choice, Router
from models.distributed import sum_over_processes


@dataclass(frozen=True)
class RouterHealth:
    """What one router did with the tokens (rows, where it works on heads) that it saw.

    Entropies are divided by the logarithm of the number of options; with one option they are 0.
    """

    shares: tuple[float, ...]
    """The fraction of tokens that chose each option."""
    usage_entropy: float
    """Entropy of the shares: 1 where all options are used alike, 0 where one takes everything."""
    token_entropy: float
    """Mean entropy of a token's softmax probabilities: 0 is certain, 1 undecided."""

    @property
    def dead(self) -> int:
        """How many options no token chose."""
        return self.shares.count(0.0)


class RoutingRecorder:
    """Watches all routers of a network while it is used as a context.

    ```
    with RoutingRecorder(backbone) as recorder:
        backbone(images, timesteps, labels)
    recorder.health()["blocks.0.attention.query_kernel.router"].shares
    ```
    """

    def __init__(self, model: nn.Module) -> None:
        modules = model.named_modules()
        self._routers = {name: module for name, module in modules if isinstance(module, Router)}
        self._sums: dict[str, Tensor] = {}
        """How many tokens chose each option, then the sum of their entropies, on the device."""
        self._hooks = ExitStack()

    def __enter__(self) -> RoutingRecorder:
        for name, router in self._routers.items():
            self._hooks.enter_context(router.register_forward_hook(partial(self._listen, name)))
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.close()

    def _listen(
        self, name: str, router: Router, inputs: tuple[Tensor, ...], choice: Choice
    ) -> None:
        del inputs
        counts = torch.bincount(choice.index.flatten(), minlength=router.options)
        logarithms = choice.logits.detach().log_softmax(dim=-1)
        entropy = -(logarithms.exp() * logarithms).sum(dtype=torch.float64)
        sums = torch.cat([counts.double(), entropy[None]])
        self._sums[name] = self._sums[name] + sums if name in self._sums else sums

    def sum_over_processes(self) -> None:
        """Count what the other processes' networks did as well. All must call it, and saw the same
        routers at work."""
        self._sums = {name: sum_over_processes(sums) for name, sums in self._sums.items()}

    def health(self) -> dict[str, RouterHealth]:
        """By the router's qualified name, summed over all forward passes so far.

        Routers that saw nothing are left out, so a network without routers gives an empty one.
        """
        seen = (name for name in self._routers if name in self._sums)
        return {name: _health(*self._sums[name].tolist()) for name in seen}


def _health(*counts_and_entropy: float) -> RouterHealth:
    *counts, entropy = counts_and_entropy
    total = sum(counts)
    shares = tuple(count / total for count in counts)
    if len(shares) == 1:
        return RouterHealth(shares, 0.0, 0.0)
    most = math.log(len(shares))
    usage = -sum(share * math.log(share) for share in shares if share) / most
    return RouterHealth(shares, usage, entropy / total / most)
