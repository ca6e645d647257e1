"""What a notebook needs: `from harness import load_trial, draw, measure, read_report`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from harness.config.schema import TrialConfig
from harness.config.sections import Weights
from harness.config.serialisation import from_yaml_file
from harness.data.datasets import load_decoder
from harness.evaluation.standalone.evaluate import evaluate_images
from harness.evaluation.standalone.spec import EvaluateSpec
from harness.machine.environment import ROOT, RUNS
from harness.sampling.sample import Samples, SampleSpec, draw_samples
from harness.tracking.store import open_store
from harness.training.export import DESCRIPTION, read_description
from harness.trial.trained import load_trained_trial
from harness.vocabulary import names
from models.backbone import Backbone
from models.errors import UserError
from reports.load import load_ablation

if TYPE_CHECKING:
    import pandas as pd

Images = str | Path | NDArray[np.uint8]
"""A folder of images, an `.npz` with `arr_0`, an `.npy`, or an array (N, H, W, C)."""


def load_trial(
    run: str | Path, *, runs_dir: Path = RUNS, weights: Weights | None = None
) -> Backbone:
    """The network of a trained trial, on the CPU and in evaluation mode.

    Args:
        run: the trial's folder, also relative to `runs_dir`, or its run id in MLflow.
        runs_dir: where trials are.
        weights: EMA weights of the `last` step or the `best` ones; None takes those that the
            trial's samples are drawn from.

    Raises:
        UserError: there is no such trial, or no weights of it that fit its configuration.
    """
    return load_trained_trial(str(run), runs_dir, weights).network


def read_config(folder: str | Path) -> TrialConfig:
    """The configuration that trained the network of a trial's folder, or of an exported model.

    Raises:
        UserError: the folder is neither, its file is damaged, or the model was not trained here.
    """
    folder = Path(folder)
    if (folder / names.ARTIFACT_CONFIG).is_file():
        return from_yaml_file(folder / names.ARTIFACT_CONFIG)
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(
            f"{folder} holds neither {names.ARTIFACT_CONFIG}, as a trial's folder does, nor "
            f"{DESCRIPTION}, as an exported model does"
        )
    trial = read_description(folder).trial
    if not trial:
        raise UserError(f"{path} names no configuration: the network was not trained here")
    return TrialConfig.model_validate(trial)


def draw(
    network: Backbone,
    config: TrialConfig,
    count: int,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Samples:
    """Draw images with the sampler, steps and guidance of a configuration.

    Image i depends on the weights, the seed and i alone: cell by cell the samples of two networks
    compare. Change the sampler by `config.model_copy(update={"sample": ...})`.

    Args:
        network: in evaluation mode, on `device`.
        config: of the trial that trained it.
        count: N.
        seed: of noise and labels.
        device: where the network is.

    Returns:
        Images (N, H, W, C) in uint8 and labels (N,), among others.

    Raises:
        UserError: a pixel is not finite, or latents cannot be decoded, since their autoencoder is
            missing.
    """
    spec = SampleSpec.of_trial(config, network, count, seed)
    decoder = load_decoder(config.data, torch.device(device))
    return draw_samples(network, spec, device, to_pixels=decoder)


def measure(
    samples: Images,
    reference: Images,
    *,
    extractor: str = "efficientnet_lite0",
    extractor_weights: Path | None = None,
) -> dict[str, float]:
    """Compare images with real ones by all metrics that an extractor gives.

    Args:
        samples: images to judge, all of one size.
        reference: real images, or a file of `harness evaluate build-reference`.
        extractor: of features: `efficientnet_lite0`, `inception`, or `torch:NAME`, a network of
            timm.
        extractor_weights: a file of weights for it, if they do not come with the package.

    Returns:
        Figures by their names in MLflow, such as `fd_efficientnet_lite0`.

    Raises:
        UserError: images, reference or weights are missing, damaged or do not fit.
    """
    with tempfile.TemporaryDirectory() as folder:
        spec = EvaluateSpec(
            samples=str(_path(samples, Path(folder, "samples.npy"))),
            reference=_path(reference, Path(folder, "reference.npy")),
            extractor=extractor,
            extractor_weights=extractor_weights,
            extractor_size=None,
            measurements=None,
            inception_splits=10,
            resamples=0,
            batch_size=64,
            device="auto",
            export=None,
            json=None,
            runs_dir=RUNS,
        )
        evaluation = evaluate_images(spec)
    assert evaluation is not None  # one process leads itself
    figures: dict[str, float] = evaluation.report["figures"]
    return figures


def _path(images: Images, file: Path) -> Path:
    if isinstance(images, np.ndarray):
        np.save(file, images)
        return file
    return Path(images)


def read_report(ablation: str, scale: str = "digits") -> pd.DataFrame:
    """The finished trials of an ablation's latest run, from the MLflow store of this repository.

    `MLFLOW_TRACKING_URI` names another store.

    Args:
        ablation: its name.
        scale: its name.

    Returns:
        A row a trial: `variant`, `seed`, `run_id`, metrics by their names in MLflow, and what the
        trial's figures depend on, in columns `harness.*`.

    Raises:
        UserError: the store cannot be read, or holds no finished trial of this ablation.
    """
    return load_ablation(open_store(ROOT).uri, ablation, scale).trials
