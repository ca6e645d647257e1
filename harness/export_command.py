"""`export RUN OUT`: the network of a trained trial, as files that others can read."""

from __future__ import annotations

from pathlib import Path

from harness.config.sections import Weights
from harness.config.serialisation import from_yaml_file
from harness.tracking.find import find_trial
from harness.training.export import export_model, weight_shapes
from harness.training.train import finished_training, load_trained, weights_file
from harness.vocabulary import names
from models.errors import UserError


def export_run(run: str, runs_dir: Path, out: Path, weights: Weights | None = None) -> None:
    """Export the EMA weights. The data set is not needed.

    Args:
        run: a trial's folder, also relative to `runs_dir`, or its run id in MLflow.
        runs_dir: where trials are.
        out: the folder to write, as `export_model` does.
        weights: which ones; None takes those that the trial's samples are drawn from.

    Raises:
        UserError: there is no such run, it is not trained, it kept no best weights, its weights do
            not fit its configuration, or `out` holds a model already.
    """
    folder = find_trial(run, runs_dir)
    config = from_yaml_file(folder / names.ARTIFACT_CONFIG)
    if finished_training(folder) is None:
        raise UserError(
            f"{folder}: training has not finished, so there are no weights to export; repeat the "
            "ablation's command, which goes on where it stopped"
        )
    weights = weights or config.sample.weights
    shapes = weight_shapes(weights_file(folder, weights))
    try:
        channels = shapes["patch_embedding.projection.weight"][1]
        num_classes = shapes["label_embedding.table.weight"][0] - 1
        side = config.data.side
        backbone = load_trained(folder, config, (channels, side, side), num_classes, weights)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{folder}: its weights do not fit its {names.ARTIFACT_CONFIG}: {reason}"
        ) from error
    export_model(backbone, out, config, weights)
