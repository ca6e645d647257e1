"""The oversmoothing probe: what the attention of a network does with noised images.

It looks at each layer, head and timestep through the matrix `A` that a variant implies
(`AttentionBlock.attention_weights`), one head at a time and few images at a time, while the network
runs: nothing but the rows of figures outlives a layer, so thousands of tokens fit into memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from harness.data.images import ImageSet, unflipped
from harness.evaluation.probe.measures import (
    effective_rank,
    empty_rows,
    normalized_rows,
    row_entropy,
    token_similarity,
)
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from models.attention.base import AttentionBlock
from models.attention.parts.products import full_precision, split_heads
from models.attention.parts.routing import Router
from models.attention.parts.routing_health import RoutingRecorder
from models.backbone import Backbone
from models.objectives import TrainingObjective
from models.objectives.base import Noised
from models.randomness import generator

NOISE_LEVELS = 4
"""Of the probe that belongs to every trial."""

ENTROPY = "attention_entropy"
"""Of the rows of A, divided by log N; of a head."""
EFFECTIVE_RANK = "attention_effective_rank"
"""Of A; of a head."""
SIMILARITY = "token_similarity"
"""Mean cosine similarity between the tokens of A v, before any norm of the outputs; of a head."""
EMPTY_ROWS = "empty_rows"
"""Share of tokens that attend to nothing, which the entropy leaves out; of a head."""
NEGATIVE_SHARE = "negative_share"
"""Share of negative weights in a row's absolute sum; of a head that has any. Its positive and its
negative weights are then measured apart as well: see `of_sign`."""
SHARE = "token_share"
"""Share of tokens that chose an option; of a router and option."""
ROUTING_ENTROPY = "routing_entropy"
"""Of these shares, divided by log n; of a router."""
ROUTING_TOKEN_ENTROPY = "routing_token_entropy"  # noqa: S105
"""Of a token's probabilities, divided by log n, averaged over tokens; of a router."""
DEAD_OPTIONS = "dead_options"
"""How many options no token chose; of a router."""

_WEIGHTS_AT_ONCE = 2**24
"""Entries of A in memory at one time: 64 MiB in float32."""


@dataclass(frozen=True)
class ProbeRow:
    """One figure, averaged over images."""

    layer: int
    timestep: float
    """What the network was told, in 0..1000."""
    metric: str
    value: float
    """NaN where it is not defined, such as for attention that is zero."""
    head: int | None = None
    router: str | None = None
    """Its name within the attention block, such as `redundant_query.kernel`."""
    option: int | None = None


@dataclass(frozen=True)
class ProbeImages:
    """What the network is shown; the same for every variant and seed."""

    images: Tensor
    """(B, C, H, W), about unit scale."""
    labels: Tensor
    """(B,)."""
    noise: Tensor
    """(B, C, H, W)."""


def choose_probe_images(held_out: ImageSet, count: int) -> ProbeImages:
    """A fixed random choice of held-out images, and fixed noise.

    Args:
        held_out: at least `count` images.
        count: how many.
    """
    order = torch.randperm(len(held_out.labels), generator=generator("probe-images"))
    chosen = order[:count]
    noise = torch.randn((count, *held_out.shape), generator=generator("probe-noise"))

    def noise_of(row: int) -> torch.Generator:
        return generator("probe-latent", row)

    images = held_out.inputs(chosen, unflipped(chosen), noise_of)
    return ProbeImages(images, held_out.labels[chosen], noise)


@torch.inference_mode()
def probe_attention(
    network: Backbone,
    objective: TrainingObjective,
    shown: ProbeImages,
    noise_levels: int,
    on_progress: ProgressListener = ignore_progress,
) -> tuple[ProbeRow, ...]:
    """Measure every layer and head, and every router, at each noise level.

    Args:
        network: in eval mode; runs where its weights are, in their precision.
        objective: noises the images.
        shown: the images.
        noise_levels: how many times, spread evenly over those that training draws.
        on_progress: told after each noise level.

    Returns:
        Rows by timestep, layer, then head or router. There are none without images, nor for a
        network of a single token, which has no attention to speak of.
    """
    rows, columns = network.config.grid
    tokens = rows * columns
    if tokens < 2 or not len(shown.labels):
        return ()
    device = next(network.parameters()).device
    at_once = max(1, _WEIGHTS_AT_ONCE // tokens**2)
    found: list[ProbeRow] = []
    for done, time in enumerate(objective.stratified_times(noise_levels), start=1):
        times = time.expand(len(shown.labels))
        noised = objective.add_noise(shown.images, shown.noise, times)
        inputs = (noised.images, noised.timesteps, shown.labels)
        parts = list(zip(*(tensor.to(device).split(at_once) for tensor in inputs), strict=True))
        found += _head_rows(network, parts, noised)
        found += _router_rows(network, parts, noised)
        on_progress(Progress("probe", done, noise_levels))
    return tuple(found)


_Parts = Sequence[tuple[Tensor, ...]]
"""Images, timesteps and labels, few images at a time."""


def of_sign(metric: str, sign: Literal["positive", "negative"]) -> str:
    """The name of a metric of A's weights of one sign, with all others set to zero."""
    return f"{metric}_{sign}"


def attention_blocks(network: Backbone) -> tuple[AttentionBlock, ...]:
    """The attention of each layer."""
    found = (block.attention for block in network.blocks)
    return tuple(attention for attention in found if isinstance(attention, AttentionBlock))


def _head_rows(network: Backbone, parts: _Parts, noised: Noised) -> list[ProbeRow]:
    figures: dict[tuple[int, int, str], list[Tensor]] = defaultdict(list)

    def measure(layer: int, attention: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(attention, AttentionBlock)
        for head in range(attention.heads):
            for metric, values in _measure_head(attention, inputs[0], head).items():
                figures[layer, head, metric].append(values.double().cpu())

    with ExitStack() as hooks:
        for layer, attention in enumerate(attention_blocks(network)):
            handle = attention.register_forward_pre_hook(partial(measure, layer))
            hooks.callback(handle.remove)
        for part in parts:
            network(*part)
    timestep = float(noised.timesteps[0])
    return [
        ProbeRow(layer, timestep, metric, float(torch.cat(values).nanmean()), head=head)
        for (layer, head, metric), values in sorted(figures.items())
    ]


def _measure_head(attention: AttentionBlock, tokens: Tensor, head: int) -> dict[str, Tensor]:
    """Metric to a figure of each image, (B,)."""
    (weights,) = full_precision(attention.attention_weights(tokens, head))
    values = split_heads(attention.qkv(tokens).chunk(3, dim=-1)[2], attention.heads)[:, head]
    similarity = token_similarity(weights @ values.to(weights.dtype))
    weights = normalized_rows(weights)
    found = {
        ENTROPY: row_entropy(weights),
        EFFECTIVE_RANK: effective_rank(weights),
        SIMILARITY: similarity,
        EMPTY_ROWS: empty_rows(weights),
    }
    negative = (-weights).clamp_min(0.0)
    if negative.any():
        # A mixture of signs raises the rank by itself, since no direction is positive throughout.
        found[NEGATIVE_SHARE] = negative.sum(dim=-1).mean(dim=-1)
        signs: dict[Literal["positive", "negative"], Tensor] = {
            "positive": weights.clamp_min(0.0),
            "negative": negative,
        }
        for sign, part in signs.items():
            rows = normalized_rows(part)
            found[of_sign(ENTROPY, sign)] = row_entropy(rows)
            found[of_sign(EFFECTIVE_RANK, sign)] = effective_rank(rows)
    return found


def _router_rows(network: Backbone, parts: _Parts, noised: Noised) -> list[ProbeRow]:
    """From a pass of its own, in which each router sees each token once."""
    if not any(isinstance(module, Router) for module in network.modules()):
        return []
    with ExitStack() as watched:
        recorders = [
            watched.enter_context(RoutingRecorder(attention))
            for attention in attention_blocks(network)
        ]
        for part in parts:
            network(*part)
    timestep = float(noised.timesteps[0])
    rows = []
    for layer, recorder in enumerate(recorders):
        for name, health in recorder.health().items():
            router = name.removesuffix(".router")
            figures = {
                ROUTING_ENTROPY: health.usage_entropy,
                ROUTING_TOKEN_ENTROPY: health.token_entropy,
                DEAD_OPTIONS: float(health.dead),
            }
            rows += [
                ProbeRow(layer, timestep, metric, value, router=router)
                for metric, value in figures.items()
            ]
            rows += [
                ProbeRow(layer, timestep, SHARE, share, router=router, option=option)
                for option, share in enumerate(health.shares)
            ]
    return rows
