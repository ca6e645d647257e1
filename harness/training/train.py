"""Training one trial, from the beginning or from where it stopped."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from safetensors.torch import load_model, save_model

from harness.atomic_file import atomic_path, write_text
from harness.config.schema import TrialConfig
from harness.data.datamodule import DrawnImages, TrainingData
from harness.data.image_set import DataSet
from harness.data.order import BatchOrder, DrawOrder
from harness.progress import ProgressListener
from harness.training.build import build_backbone, build_module
from harness.training.checkpoints import Checkpoints, resumable_checkpoint, step_of
from harness.training.hardware import Precision, choose_precision
from harness.training.pace import Pace
from harness.training.routing_log import RoutingLog
from harness.training.validation import METRIC, Validation, held_out_loss
from models.backbone import Backbone
from models.diffusion_module import Batch, DiffusionModule
from models.errors import UserError

_SUMMARY = "trained.json"
EMA_WEIGHTS = "ema.safetensors"
_CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrainingSummary:
    """What training left behind."""

    steps: int
    validation_loss: float
    images_per_second: float | None
    """Median over steps; None where a run is shorter than the warm-up."""
    precision: str
    resumed_from_step: int | None


def finished_training(folder: Path) -> TrainingSummary | None:
    """The summary of a training that ended here, or None."""
    path = folder / _SUMMARY
    if not path.exists():
        return None
    return TrainingSummary(**json.loads(path.read_text(encoding="utf-8")))


def load_trained(
    folder: Path, config: TrialConfig, image_shape: tuple[int, int, int], num_classes: int
) -> Backbone:
    """The network with the EMA weights that training left in a folder, in evaluation mode."""
    backbone = build_backbone(config, image_shape, num_classes)
    load_model(backbone, folder / EMA_WEIGHTS)
    return backbone.eval()


def resolve_precision(
    config: TrialConfig, data: DataSet, device: torch.device, decision: Path
) -> Precision:
    """The precision to train in. See `choose_precision` for `auto` and `decision`."""

    @cache
    def prepared() -> tuple[DiffusionModule, Batch]:
        """Built only where a measurement needs it."""
        module = build_module(config, data.train.shape, len(data.train.class_names))
        order = DrawOrder(len(data.train.labels), config.train.batch_size, config.seed, False)
        (draws,) = BatchOrder(order, 0, 1)
        return module, DrawnImages(data.train, config.seed).__getitems__(draws)

    def step() -> torch.Tensor:
        module, batch = prepared()
        module.zero_grad(set_to_none=True)
        loss = module.batch_losses(batch).mean()
        loss.backward()
        return loss.detach()

    return choose_precision(config.train, device, step, decision)


def train(
    config: TrialConfig,
    data: DataSet,
    folder: Path,
    device: torch.device,
    precision: Precision,
    logger: Logger,
    listener: ProgressListener,
) -> TrainingSummary:
    """Train to the last step, resuming from the newest whole checkpoint in the folder.

    Args:
        config: of the trial.
        data: training and held-out images.
        folder: of the trial; gets `checkpoints/`, `ema.safetensors` and `trained.json`.
        device: where to train.
        precision: resolved, as `resolve_precision` gives it.
        logger: is given the metrics.
        listener: is told after every step.

    Raises:
        UserError: the loss stops being finite.
    """
    done = finished_training(folder)
    if done is not None:
        return done
    settings = config.train
    module = build_module(config, data.train.shape, len(data.train.class_names))
    pace = Pace(settings.batch_size, listener, settings.log_every)
    validation = Validation(data.held_out, settings.validate_every, settings.batch_size)
    checkpoint = resumable_checkpoint(folder / _CHECKPOINTS)
    trainer = pl.Trainer(
        max_steps=settings.steps,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision=precision,
        logger=logger,
        callbacks=[
            pace,
            validation,
            RoutingLog(settings.validate_every),
            Checkpoints(folder / _CHECKPOINTS, settings.checkpoint_every),
            pace.restart,
        ],
        log_every_n_steps=settings.log_every,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(
        module,
        datamodule=TrainingData(config, data.train),
        ckpt_path=checkpoint,
        weights_only=True,
    )
    if trainer.global_step < settings.steps:
        raise UserError(f"training stopped at step {trainer.global_step} of {settings.steps}")
    # A run that was stopped after its last checkpoint resumes with nothing left to train.
    loss = validation.loss_after(settings.steps)
    if loss is None:
        loss = held_out_loss(
            module.ema_backbone.to(device),
            module.objective,
            data.held_out,
            settings.batch_size,
            device,
        )
        logger.log_metrics({METRIC: loss}, step=settings.steps)
    with atomic_path(folder / EMA_WEIGHTS) as temporary:
        save_model(module.ema_backbone, str(temporary))
    summary = TrainingSummary(
        steps=trainer.global_step,
        validation_loss=loss,
        images_per_second=pace.images_per_second,
        precision=precision,
        resumed_from_step=step_of(checkpoint) if checkpoint else None,
    )
    write_text(folder / _SUMMARY, json.dumps(asdict(summary), indent=2) + "\n")
    return summary
