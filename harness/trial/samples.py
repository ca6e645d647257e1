"""The sampling stage of a trial, resumable, and the grid that shows what came of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harness.config.schema import TrialConfig
from harness.data.datasets import load_decoder
from harness.data.images import DataSet
from harness.evaluation.cost import images_per_second
from harness.machine.files import atomic_path, write_text
from harness.processes.group import ProcessGroup
from harness.processes.progress import ProgressListener
from harness.sampling.grid import class_grid, save_grid_png, shown_classes
from harness.sampling.sample import draw_samples
from harness.sampling.sinks import FileSink, load_samples, save_samples
from harness.trial.spec import TrialOrder
from harness.vocabulary import names
from harness.vocabulary.names import SAMPLES
from models.backbone import Backbone

_COST = "sampled.json"


def trial_samples(
    network: Backbone,
    config: TrialConfig,
    data: DataSet,
    order: TrialOrder,
    *,
    device: torch.device,
    report: ProgressListener,
    group: ProcessGroup,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], float | None]:
    """The samples of a trial, drawn now or before, by all processes of a group.

    Args:
        network: with trained weights, on `device`.
        config: of the trial.
        data: what it was trained on.
        order: says where the trial lives.
        device: where to draw.
        report: told after each batch.
        group: of processes that call this together; the leading one writes.

    Returns:
        Images (N, H, W, C), labels (N,), and images a second while they were drawn.
    """
    folder = Path(order.folder)
    path, cost = folder / SAMPLES, folder / _COST
    # Others than the leading one do not even look: NFS would remember that there was no file.
    if not group.broadcast(group.leads and path.exists() and cost.exists()):
        sink = FileSink(folder, config.evaluate.samples, order.hash) if group.leads else None
        samples = draw_samples(
            network,
            config.sample,
            config.objective,
            shape=data.train.shape,
            num_classes=len(data.train.class_names),
            count=config.evaluate.samples,
            seed=config.seed,
            device=device,
            to_pixels=load_decoder(config.data, device),
            sink=sink,
            group=group,
            on_progress=report,
        )
        if sink is not None:
            save_samples(path, samples.images, samples.labels)
            measured = {
                "images_per_second": images_per_second(samples.batches, warmup=1),
                "seconds": samples.seconds,
                "network_evaluations_per_image": samples.network_evaluations,
            }
            write_text(cost, json.dumps(measured, indent=2) + "\n")
            sink.remove()
        group.barrier()
    speed: float | None = json.loads(cost.read_text(encoding="utf-8"))["images_per_second"]
    return *load_samples(path), speed


def save_grid(
    folder: Path,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    class_names: tuple[str, ...],
    columns: int,
) -> tuple[Path, Path]:
    """Write some samples of some classes, as a picture and as arrays.

    Returns:
        The two files, relative to the folder.
    """
    shown = shown_classes(len(class_names))
    grid = class_grid(images, labels, shown, columns)
    save_grid_png(folder / names.ARTIFACT_GRID, grid)
    with atomic_path(folder / names.ARTIFACT_GRID_IMAGES) as temporary:
        np.savez_compressed(
            temporary,
            images=grid,
            class_names=np.array([class_names[label] for label in shown]),
        )
    return Path(names.ARTIFACT_GRID), Path(names.ARTIFACT_GRID_IMAGES)
