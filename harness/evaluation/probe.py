"""The oversmoothing probe: what the attention of a network does with noised images.

It looks at each layer, head and timestep through the matrix `A` that a variant implies
(`AttentionBlock.attention_weights`), one head at a time and few images at a time, while the network
runs: nothing but the rows of figures outlives a layer, so thousands of tokens fit into memory.

Kept are a table of all rows, their means, and a figure with a panel a metric and a line a timestep,
over the layers.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from harness.config.schema import TrialConfig
from harness.data.images import DataSet, ImageSet, unflipped
from harness.evaluation.metrics.attention import (
    effective_rank,
    empty_rows,
    normalized_rows,
    row_entropy,
    token_similarity,
)
from harness.machine.files import write_bytes, write_text
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from harness.vocabulary import names
from models.attention.base import AttentionBlock
from models.attention.parts.products import full_precision, split_heads
from models.attention.parts.routing import Router
from models.attention.parts.routing_health import RoutingRecorder
from models.backbone import Backbone
from models.objectives import build_objective
from models.objectives.base import Noised, TrainingObjective
from models.randomness import generator

NOISE_LEVELS = 4
"""Of the probe that belongs to every trial."""

ENTROPY = names.ATTENTION_ENTROPY
"""Of the rows of A, divided by log N; of a head."""
EFFECTIVE_RANK = names.ATTENTION_EFFECTIVE_RANK
"""Of A; of a head."""
SIMILARITY = names.TOKEN_SIMILARITY
"""Mean cosine similarity between the tokens of A v, before any norm of the outputs; of a head."""
EMPTY_ROWS = "empty_rows"
"""Share of tokens that attend to nothing, which the entropy leaves out; of a head."""
NEGATIVE_SHARE = "negative_share"
"""Share of negative weights in a row's absolute sum; of a head that has any. Its positive and its
negative weights are then measured apart as well: see `of_sign`."""
SHARE = "token_share"
"""Share of tokens that chose an option; of a router and option."""
ROUTING_ENTROPY = names.ROUTING_ENTROPY
"""Of these shares, divided by log n; of a router."""
ROUTING_TOKEN_ENTROPY = "routing_token_entropy"  # noqa: S105
"""Of a token's probabilities, divided by log n, averaged over tokens; of a router."""
DEAD_OPTIONS = "dead_options"
"""How many options no token chose; of a router."""

_LOGGED = (ENTROPY, EFFECTIVE_RANK, SIMILARITY, ROUTING_ENTROPY)

_PANELS = {
    ENTROPY: "row entropy / log N",
    EFFECTIVE_RANK: "effective rank",
    SIMILARITY: "token similarity",
}

_PANEL_INCHES = (2.6, 2.3)
_DOTS_PER_INCH = 200

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
    """A fixed random choice of `count` held-out images, of at least as many, and fixed noise."""
    order = torch.randperm(len(held_out.labels), generator=generator("probe-images"))
    chosen = order[:count]
    noise = torch.randn((count, *held_out.shape), generator=generator("probe-noise"))
    images = held_out.inputs(chosen, unflipped(chosen), partial(generator, "probe-latent"))
    return ProbeImages(images, held_out.labels[chosen], noise)


_Parts = Sequence[tuple[Tensor, ...]]
"""Images, timesteps and labels, few images at a time."""


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


def of_sign(metric: str, sign: Literal["positive", "negative"]) -> str:
    """The name of a metric of A's weights of one sign, with all others set to zero."""
    return f"{metric}_{sign}"


def attention_blocks(network: Backbone) -> tuple[AttentionBlock, ...]:
    """The attention of each layer."""
    found = (block.attention for block in network.blocks)
    return tuple(attention for attention in found if isinstance(attention, AttentionBlock))


def probe_trial(
    network: Backbone,
    config: TrialConfig,
    data: DataSet,
    images: int,
    noise_levels: int,
    report: ProgressListener,
) -> tuple[ProbeRow, ...]:
    """Probe a trained network, with EMA weights on the device to use, on the held-out images that
    all trials are probed on; `report` is told after each of the noise levels."""
    shown = choose_probe_images(data.held_out, images)
    return probe_attention(network, build_objective(config.objective), shown, noise_levels, report)


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
            "positive": normalized_rows(weights.clamp_min(0.0)),
            "negative": normalized_rows(negative),
        }
        for sign, rows in signs.items():
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
            found = [
                (ROUTING_ENTROPY, health.usage_entropy, None),
                (ROUTING_TOKEN_ENTROPY, health.token_entropy, None),
                (DEAD_OPTIONS, float(health.dead), None),
                *((SHARE, share, option) for option, share in enumerate(health.shares)),
            ]
            router = name.removesuffix(".router")
            rows += [
                ProbeRow(layer, timestep, metric, value, router=router, option=option)
                for metric, value, option in found
            ]
    return rows


def probe_csv(rows: Sequence[ProbeRow]) -> str:
    """All rows with all digits, a column a field of `ProbeRow`; what a row lacks is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(ProbeRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def select(
    rows: Sequence[ProbeRow], metric: str, layer: int | None = None, timestep: float | None = None
) -> list[float]:
    """The finite values of a metric; of all layers and timesteps where none is given."""
    return [
        row.value
        for row in rows
        if row.metric == metric
        and layer in (None, row.layer)
        and timestep in (None, row.timestep)
        and math.isfinite(row.value)
    ]


def mean(values: Sequence[float]) -> float:
    """NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def layers(rows: Sequence[ProbeRow]) -> list[int]:
    """Those that were measured, in order."""
    return sorted({row.layer for row in rows})


def timesteps(rows: Sequence[ProbeRow]) -> list[float]:
    """Those that were measured, in order."""
    return sorted({row.timestep for row in rows})


def probe_png(rows: Sequence[ProbeRow]) -> bytes:
    """Lines are means over the heads, bands their range; early timesteps are dark, late ones light.

    There must be a row.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    steps, places = timesteps(rows), layers(rows)
    colors = mpl.colormaps["viridis"]
    with mpl.rc_context({"font.size": 8, "axes.grid": True, "grid.alpha": 0.3}):
        width, height = _PANEL_INCHES
        figure = Figure(figsize=(width * len(_PANELS), height), layout="constrained")
        panels = zip(figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True)
        for axes, (metric, title) in panels:
            for index, timestep in enumerate(steps):
                found = [select(rows, metric, layer=layer, timestep=timestep) for layer in places]
                color = colors(0.9 * index / max(len(steps) - 1, 1))
                means = [mean(values) for values in found]
                style = {"marker": "o", "markersize": 3, "label": f"{timestep:.0f}"}
                axes.plot(places, means, color=color, **style)
                low, high = (
                    [extreme(values, default=math.nan) for values in found]
                    for extreme in (min, max)
                )
                axes.fill_between(places, low, high, color=color, alpha=0.12, linewidth=0)
            axes.set(xlabel="layer", title=title)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        title = "timestep\n(bands: range of heads)"
        figure.legend(handles, labels, title=title, loc="outside right center", frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH)
    return buffer.getvalue()


def probe_metrics(rows: Sequence[ProbeRow]) -> dict[str, float]:
    """The means that are logged: over everything, of each layer, of each timestep.

    A metric that was not measured, such as routing where there are no routers, has none.
    """
    metrics: dict[str, float] = {}
    for metric in _LOGGED:
        measured = [row for row in rows if row.metric == metric]
        if measured:
            metrics[metric] = mean(select(measured, metric))
        for layer in layers(measured):
            metrics[names.at_layer(metric, layer)] = mean(select(measured, metric, layer=layer))
        for timestep in timesteps(measured):
            values = select(measured, metric, timestep=timestep)
            metrics[names.at_timestep(metric, timestep)] = mean(values)
    return metrics


def write_probe(rows: Sequence[ProbeRow], folder: Path, name: str) -> tuple[Path, Path]:
    """Write `name.csv` with all rows, at least one, and `name.png` into a folder."""
    table, picture = folder / f"{name}.csv", folder / f"{name}.png"
    write_text(table, probe_csv(rows))
    write_bytes(picture, probe_png(rows))
    return table, picture
