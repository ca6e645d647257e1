"""Health of the routed parts over training: shares, dead options, entropies, gammas and lambdas.

Names of metrics: `routing/...`, `gamma/...` and `lambda/...` alone are of the whole network;
`routing/layer_00/query_kernel/usage_entropy` is of one router, `.../share/0` of its first option,
`gamma/layer_00/query_kernel/0` of one learned value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from harness.training.pace import record
from models.attention.parts.dynamic import ChosenDifference, StaticDifference
from models.attention.parts.power_kernel import ChosenPower
from models.attention.parts.routing_health import RouterHealth, RoutingRecorder
from models.backbone import Backbone
from models.diffusion_module import DiffusionModule
from models.distributed import gathered

Factor = Literal["gamma", "lambda"]

_FIGURES: dict[str, Callable[[RouterHealth], float]] = {
    "max_share": lambda router: max(router.shares),
    "min_share": lambda router: min(router.shares),
    "dead": lambda router: router.dead,
    "usage_entropy": lambda router: router.usage_entropy,
    "token_entropy": lambda router: router.token_entropy,
}


@dataclass(eq=False)
class RoutingLog(pl.Callback):
    """Logs every `every` steps, and of the last step, what the routers did with that step's batch
    and what the learned exponents and lambdas are after it.

    It listens to the forward pass of training and computes nothing of its own, so it cannot change
    a weight. Of a network without such parts it logs nothing. A compiled network cannot be listened
    to: those steps are run by the code that it was compiled from, which rounds otherwise.
    """

    every: int
    compiled: bool = False
    _recorder: RoutingRecorder | None = None
    _listening: ExitStack = field(default_factory=ExitStack)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object
    ) -> None:
        assert isinstance(pl_module, DiffusionModule)
        step = trainer.global_step + 1
        if step % self.every == 0 or step == trainer.max_steps:
            if self.compiled:
                # Compiled code does not see hooks that come later.
                self._listening.enter_context(torch.compiler.set_stance("force_eager"))
            self._recorder = self._listening.enter_context(RoutingRecorder(pl_module.backbone))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object
    ) -> None:
        if self._recorder is None:
            return
        assert isinstance(pl_module, DiffusionModule)
        self._recorder.sum_over_processes()
        health = self._recorder.health()
        self._stop_listening()
        metrics = {**routing_metrics(health), **factor_metrics(pl_module.backbone)}
        if metrics:
            record(trainer, metrics, trainer.global_step)

    def on_exception(self, *_: object) -> None:
        self._stop_listening()

    def _stop_listening(self) -> None:
        self._listening.close()
        self._recorder = None


def routing_metrics(health: Mapping[str, RouterHealth]) -> dict[str, float]:
    """Figures of each router, then the means over all of them.

    Args:
        health: by the router's name within the backbone.
    """
    metrics: dict[str, float] = {}
    for name, router in health.items():
        place = _place(name.removesuffix(".router"))
        for option, share in enumerate(router.shares):
            metrics[f"routing/{place}/share/{option}"] = share
        for figure, of in _FIGURES.items():
            metrics[f"routing/{place}/{figure}"] = float(of(router))
    if health:
        for figure, of in _FIGURES.items():
            metrics[f"routing/{figure}"] = sum(map(of, health.values())) / len(health)
    return metrics


def factor_metrics(backbone: Backbone) -> dict[str, float]:
    """Each learned exponent (gamma) and lambda, then minimum, mean and maximum over all of a kind.

    A bank that several parts share stands under the first one's name. Of exponents that differ
    between heads, each value is the mean over the heads, to keep the number of metrics in bounds.
    """
    metrics: dict[str, float] = {}
    everything: dict[Factor, list[Tensor]] = {"gamma": [], "lambda": []}
    for kind, name, values in _learned_factors(backbone):
        everything[kind].append(values.flatten())
        for index, value in enumerate(values.reshape(-1, values.shape[-1]).mean(dim=0).tolist()):
            metrics[f"{kind}/{_place(name)}/{index}"] = value
    for kind, found in everything.items():
        if found:
            together = torch.cat(found)
            metrics[f"{kind}/min"] = float(together.min())
            metrics[f"{kind}/mean"] = float(together.mean())
            metrics[f"{kind}/max"] = float(together.max())
    return metrics


def _learned_factors(backbone: Backbone) -> Iterator[tuple[Factor, str, Tensor]]:
    """Kind, name of the part within the backbone, and values (n,) or (H, n); shared ones once."""
    seen: set[int] = set()
    for name, module in backbone.named_modules():
        match module:
            case ChosenPower():
                bank = module.raw_exponents
                if id(bank) not in seen:
                    yield "gamma", name, module.exponent_map.exponents(_values(bank))
                seen.add(id(bank))
            case ChosenDifference():
                yield "lambda", name, _values(module.factors)
            case StaticDifference():
                yield "lambda", name, _values(module.factor)


def _values(parameter: Tensor) -> Tensor:
    return gathered(parameter.detach()).float().cpu()


def _place(name: str) -> str:
    """`blocks.3.attention.query_kernel` to `layer_03/query_kernel`."""
    _, layer, _, part = name.split(".", 3)
    return f"layer_{int(layer):02d}/{part}"
