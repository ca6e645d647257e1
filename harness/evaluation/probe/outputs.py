"""The probe of one trial: on which images, under which names, in which files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.config.schema import TrialConfig
from harness.data.images import DataSet
from harness.evaluation.probe.probe import (
    EFFECTIVE_RANK,
    ENTROPY,
    ROUTING_ENTROPY,
    SIMILARITY,
    ProbeRow,
    choose_probe_images,
    probe_attention,
)
from harness.evaluation.probe_figure import probe_png
from harness.evaluation.probe_table import layers, mean, probe_csv, select, timesteps
from harness.machine.files import write_bytes, write_text
from harness.processes.progress import ProgressListener
from harness.vocabulary import names
from models.backbone import Backbone
from models.objectives import build_objective

_NAMES = {
    ENTROPY: names.ATTENTION_ENTROPY,
    EFFECTIVE_RANK: names.ATTENTION_EFFECTIVE_RANK,
    SIMILARITY: names.TOKEN_SIMILARITY,
    ROUTING_ENTROPY: names.ROUTING_ENTROPY,
}


def probe_trial(
    network: Backbone,
    config: TrialConfig,
    data: DataSet,
    images: int,
    noise_levels: int,
    report: ProgressListener,
) -> tuple[ProbeRow, ...]:
    """Probe a trained network on the held-out images that all trials are probed on.

    Args:
        network: with EMA weights, on the device to use.
        config: of the trial.
        data: what it was trained on.
        images: how many held-out images.
        noise_levels: how many timesteps.
        report: told after each timestep.
    """
    return probe_attention(
        network,
        build_objective(config.objective),
        choose_probe_images(data.held_out, images),
        noise_levels,
        report,
    )


def probe_metrics(rows: Sequence[ProbeRow]) -> dict[str, float]:
    """The means that are logged: over everything, of each layer, of each timestep.

    A metric that was not measured, such as routing where there are no routers, has none.
    """
    metrics: dict[str, float] = {}
    for metric, name in _NAMES.items():
        measured = [row for row in rows if row.metric == metric]
        if not measured:
            continue
        metrics[name] = mean(select(measured, metric))
        for layer in layers(measured):
            metrics[names.at_layer(name, layer)] = mean(select(measured, metric, layer=layer))
        for timestep in timesteps(measured):
            values = select(measured, metric, timestep=timestep)
            metrics[names.at_timestep(name, timestep)] = mean(values)
    return metrics


def write_probe(rows: Sequence[ProbeRow], folder: Path, name: str) -> tuple[Path, Path]:
    """Write `name.csv` with all rows and `name.png`.

    Args:
        rows: at least one.
        folder: where to.
        name: without suffix.
    """
    table, picture = folder / f"{name}.csv", folder / f"{name}.png"
    write_text(table, probe_csv(rows))
    write_bytes(picture, probe_png(rows))
    return table, picture
