"""A trial that is trained: its network, and the probe of its attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config.schema import TrialConfig
from harness.config.sections import Weights
from harness.config.serialisation import from_yaml_file
from harness.data.datasets import load_data_set
from harness.evaluation.probe import (
    DEAD_OPTIONS,
    EFFECTIVE_RANK,
    ENTROPY,
    NOISE_LEVELS,
    ROUTING_ENTROPY,
    ROUTING_TOKEN_ENTROPY,
    SHARE,
    SIMILARITY,
    ProbeRow,
    layers,
    mean,
    probe_trial,
    select,
    timesteps,
    write_probe,
)
from harness.machine.place import choose_device
from harness.processes.progress import ignore_progress
from harness.tracking.publisher import find_trial
from harness.training.train import finished_training, load_trained
from harness.vocabulary import names
from models.backbone import Backbone
from models.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


_IMAGES = 8
"""Where the trial itself was not probed."""
_CHOICES = "tokens a choice (%)"


@dataclass(frozen=True)
class TrainedTrial:
    """A trial whose training has ended."""

    folder: Path
    config: TrialConfig
    weights: Weights
    """Which ones the network has."""
    network: Backbone
    """On the CPU and in evaluation mode."""


def load_trained_trial(run: str, runs_dir: Path, weights: Weights | None = None) -> TrainedTrial:
    """The network of a trained trial. No data set is needed.

    Args:
        run: a trial's folder, also relative to `runs_dir`, or its run id in MLflow.
        runs_dir: where trials are.
        weights: which ones; None takes those that the trial's samples are drawn from.

    Raises:
        UserError: there is no such run, it is not trained, it kept no best weights, or its weights
            do not fit its configuration.
    """
    folder = find_trial(run, runs_dir)
    config = from_yaml_file(folder / names.ARTIFACT_CONFIG)
    if finished_training(folder) is None:
        raise UserError(
            f"{folder}: training has not finished, so there are no weights to read; repeat the "
            "ablation's command, which goes on where it stopped"
        )
    weights = weights or config.sample.weights
    return TrainedTrial(folder, config, weights, load_trained(folder, config, weights))


def probe_run(
    run: str,
    runs_dir: Path,
    images: int | None,
    noise_levels: int | None,
    console: Console,
    weights: Weights | None = None,
) -> None:
    """Probe the weights of a trial, named as for `load_trained_trial`, on held-out images at some
    noise levels; print a row a layer, and write all rows and a figure.

    None takes as many images and noise levels as the trial did. Probed as the trial itself was, the
    files are `attention_probe.csv` and `.png` in the trial's folder; otherwise they bear the number
    of images and timesteps, and which weights, so that what MLflow has been sent is not replaced by
    something else.

    Raises:
        UserError: the trial cannot be loaded, or the numbers do not fit.
    """
    trial = load_trained_trial(run, runs_dir, weights)
    folder, config = trial.folder, trial.config
    own = (config.evaluate.probe_images, NOISE_LEVELS)
    images = (config.evaluate.probe_images or _IMAGES) if images is None else images
    noise_levels = NOISE_LEVELS if noise_levels is None else noise_levels
    data = load_data_set(config.data)
    _check(images, "--images", len(data.held_out.labels), "held-out images")
    _check(noise_levels, "--timesteps", 1000, "timesteps")
    network = trial.network.to(choose_device(config.train.device, "train.device"))
    of_data = (data.train.shape, len(data.train.class_names))
    if of_data != (network.config.image_shape, network.config.num_classes):
        raise UserError(
            f"{folder}: its weights do not fit the data set of its {names.ARTIFACT_CONFIG}, images "
            f"(C, H, W) of {of_data[0]} in {of_data[1]} classes"
        )
    rows = probe_trial(network, config, data, images, noise_levels, ignore_progress)
    if not rows:
        raise UserError(f"{folder}: the network has a single token, so there is nothing to probe")
    name = names.ARTIFACT_PROBE
    if (images, noise_levels) != own:
        name += f"-{images}-images-{noise_levels}-timesteps"
    if trial.weights != config.sample.weights:
        name += f"-{trial.weights}-weights"
    written = write_probe(rows, folder, name)
    shown = ", ".join(f"{timestep:.0f}" for timestep in timesteps(rows))
    tokens = network.config.grid[0] * network.config.grid[1]
    say = partial(console.print, highlight=False, markup=False)
    say(
        f"{folder.parent.name} seed {config.seed}: {tokens} tokens, {images} held-out images, "
        f"timesteps {shown}, {trial.weights} weights"
    )
    say(_head_table(rows))
    if any(row.router is not None for row in rows):
        say(_router_table(rows))
    for file in written:
        say(str(file), soft_wrap=True)


def _check(number: int, option: str, most: int, what: str) -> None:
    if not 1 <= number <= most:
        raise UserError(f"{option} is {number}, but must be 1 to {most} ({what})")


def _head_table(rows: Sequence[ProbeRow]) -> Table:
    """A row a layer: means over heads and timesteps."""
    columns = {
        "row entropy / log N": (ENTROPY, 3),
        "effective rank": (EFFECTIVE_RANK, 2),
        "token similarity": (SIMILARITY, 3),
    }
    table = _table("Attention, mean over heads and timesteps", "layer", *columns)
    for layer in (*layers(rows), None):
        if layer is None:
            table.add_section()
        means = (
            f"{mean(select(rows, metric, layer=layer)):.{decimals}f}"
            for metric, decimals in columns.values()
        )
        table.add_row("all" if layer is None else str(layer), *means)
    return table


def _router_table(rows: Sequence[ProbeRow]) -> Table:
    """A row a layer and router: means over timesteps, and shares of tokens."""
    table = _table(
        "Routers, mean over timesteps",
        *("layer", "router", "usage entropy", "token entropy", "dead", _CHOICES),
    )
    routers = dict.fromkeys((row.layer, row.router) for row in rows if row.router is not None)
    for layer, router in sorted(routers, key=lambda pair: pair[0]):
        mine = [row for row in rows if (row.layer, row.router) == (layer, router)]
        options = sorted({row.option for row in mine if row.option is not None})
        shares = (
            mean(select([row for row in mine if row.option == option], SHARE)) for option in options
        )
        table.add_row(
            str(layer),
            router,
            f"{mean(select(mine, ROUTING_ENTROPY)):.3f}",
            f"{mean(select(mine, ROUTING_TOKEN_ENTROPY)):.3f}",
            f"{mean(select(mine, DEAD_OPTIONS)):.1f}",
            " ".join(f"{100 * share:.0f}" for share in shares),
        )
    return table


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    for column in columns:
        words = column in ("router", _CHOICES)
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    return table
