"""How the routers of a network use their options: shares, dead options, entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

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


class _Tally:
    """Sums over the choices that one router made, kept on its device."""

    def __init__(self) -> None:
        self._counts: Tensor | None = None
        self._entropy: Tensor | None = None

    def listen(self, router: nn.Module, inputs: tuple[Tensor, ...], choice: Choice) -> None:
        """The forward hook."""
        del router, inputs
        options = choice.logits.shape[-1]
        logits = choice.logits.detach().reshape(-1, options)
        counts = torch.bincount(logits.argmax(dim=-1), minlength=options)
        logarithms = logits.log_softmax(dim=-1)
        entropy = -(logarithms.exp() * logarithms).sum(dtype=torch.float64)
        self._counts = counts if self._counts is None else self._counts + counts
        self._entropy = entropy if self._entropy is None else self._entropy + entropy

    def sum_over_processes(self) -> None:
        if self._counts is None or self._entropy is None:
            return
        options = len(self._counts)
        packed = torch.cat([self._counts.double(), self._entropy[None]])
        counts, entropy = sum_over_processes(packed).split([options, 1])
        self._counts, self._entropy = counts.long(), entropy.squeeze(0)

    def health(self) -> RouterHealth | None:
        if self._counts is None or self._entropy is None:
            return None
        counts = self._counts.tolist()
        shares = tuple(count / sum(counts) for count in counts)
        if len(shares) == 1:
            return RouterHealth(shares, 0.0, 0.0)
        most = math.log(len(shares))
        usage = -sum(share * math.log(share) for share in shares if share) / most
        return RouterHealth(shares, usage, self._entropy.item() / sum(counts) / most)


class RoutingRecorder:
    """Watches all routers of a network while it is used as a context.

    ```
    with RoutingRecorder(backbone) as recorder:
        backbone(images, timesteps, labels)
    recorder.health()["blocks.0.attention.query_kernel.router"].shares
    ```
    """

    def __init__(self, model: nn.Module) -> None:
        self._routers = {
            name: module for name, module in model.named_modules() if isinstance(module, Router)
        }
        self._tallies = {name: _Tally() for name in self._routers}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> RoutingRecorder:
        for name, router in self._routers.items():
            self._handles.append(router.register_forward_hook(self._tallies[name].listen))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    def sum_over_processes(self) -> None:
        """Count what the other processes' networks did as well. All must call it, and saw the same
        routers at work."""
        for tally in self._tallies.values():
            tally.sum_over_processes()

    def health(self) -> dict[str, RouterHealth]:
        """By the router's qualified name, summed over all forward passes so far.

        Routers that saw nothing are left out, so a network without routers gives an empty one.
        """
        found = {name: tally.health() for name, tally in self._tallies.items()}
        return {name: health for name, health in found.items() if health is not None}
