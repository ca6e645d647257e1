"""Training one trial, from the beginning or from where it stopped."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from safetensors.torch import load_model, save_model

from harness.config.schema import TrialConfig
from harness.config.sections import Weights
from harness.data.batches import BatchOrder, DrawnImages, DrawOrder, TrainingData
from harness.data.images import DataSet
from harness.machine.files import atomic_path, read_json, write_json
from harness.processes.group import current_group, lost_touch_as_user_error
from harness.processes.progress import ProgressListener
from harness.processes.signals import StopRequest
from harness.training.build import build_backbone, build_module, check_batch
from harness.training.checkpoints import (
    Checkpoints,
    Preemption,
    WriteInPlace,
    resumable_checkpoint,
    step_of,
)
from harness.training.hardware import (
    ConnectedGroup,
    Precision,
    build_strategy,
    choose_precision,
    compile_blocks,
    is_sharded,
)
from harness.training.pace import Pace
from harness.training.routing_log import RoutingLog
from harness.training.skipped_steps import SkippedSteps, leave_out, steps_left_out
from harness.training.validation import (
    BEST_WEIGHTS,
    METRIC,
    BestWeights,
    SampleMeasure,
    SampleValidation,
    Validation,
    held_out_loss,
)
from models.backbone import Backbone
from models.diffusion_module import Batch, DiffusionModule, NonFiniteLossError
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
    skipped_steps: tuple[int, ...] = ()
    """Steps whose batches were left out, see `train.on_non_finite`."""


def finished_training(folder: Path) -> TrainingSummary | None:
    """The summary of a training that ended here, or None."""
    path = folder / _SUMMARY
    if not path.exists():
        return None
    return read_json(path, TrainingSummary)


def load_trained(
    folder: Path,
    config: TrialConfig,
    image_shape: tuple[int, int, int],
    num_classes: int,
    weights: Weights = "last",
) -> Backbone:
    """The network with the EMA weights that training left in a folder, in evaluation mode.

    Raises:
        UserError: the best weights are asked for, but none were kept.
    """
    backbone = build_backbone(config, image_shape, num_classes)
    load_model(backbone, weights_file(folder, weights))
    return backbone.eval()


def weights_file(folder: Path, weights: Weights) -> Path:
    """Where training left these EMA weights.

    Raises:
        UserError: the best weights are asked for, but none were kept.
    """
    path = folder / {"last": EMA_WEIGHTS, "best": BEST_WEIGHTS}[weights]
    if weights == "best" and not path.is_file():
        raise UserError(
            f"{folder} holds no best weights: train.best_by was null, or no validation gave a "
            "finite value; take the last weights"
        )
    return path


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
    measure: SampleMeasure | None = None,
    stop: StopRequest | None = None,
) -> TrainingSummary:
    """Train to the last step, resuming from the newest whole checkpoint in the folder.

    All processes of the present group call it together. Any number of them may resume what another
    number began. The leading one writes the files.

    Args:
        config: of the trial.
        data: training and held-out images.
        folder: of the trial; gets `checkpoints/`, `ema.safetensors` and `trained.json`, and with
            `train.best_by` `best.safetensors` and `best.json`.
        device: where to train.
        precision: resolved, as `resolve_precision` gives it.
        logger: is given the metrics.
        listener: is told after every step.
        measure: draws and measures validation samples; None for a trial without them.
        stop: looked at after every step.

    Raises:
        UserError: the loss stops being finite and no batch may be left out for it, the processes
            cannot share a batch evenly, another process failed, or `train.compile` finds no
            compiler.
        Preempted: a stop was requested; a checkpoint of the last step is saved.
    """
    group = current_group()
    done = group.broadcast(finished_training(folder) if group.leads else None)
    if done is not None:
        return done
    left_out = group.broadcast(steps_left_out(folder) if group.leads else frozenset())
    while True:
        try:
            return _train(
                config, data, folder, device, precision, logger, listener, measure, stop, left_out
            )
        except NonFiniteLossError as error:
            left_out = leave_out(error, left_out, config.train, folder, group)


def _train(
    config: TrialConfig,
    data: DataSet,
    folder: Path,
    device: torch.device,
    precision: Precision,
    logger: Logger,
    listener: ProgressListener,
    measure: SampleMeasure | None,
    stop: StopRequest | None,
    left_out: frozenset[int],
) -> TrainingSummary:
    """One attempt, which leaves some steps out.

    Raises:
        NonFiniteLossError: another step has to be left out.
    """
    group = current_group()
    settings = config.train
    check_batch(settings, group.size)
    sharded = is_sharded(settings, group)
    module = build_module(config, data.train.shape, len(data.train.class_names), sharded)
    if settings.compile:
        compile_blocks(module.backbone, device)
    pace = Pace(settings.batch_size, listener, settings.log_every)
    best = None if settings.best_by is None else BestWeights(folder, settings.best_by)
    validation = Validation(data.held_out, settings.validate_every, settings.batch_size, best)
    optional: list[pl.Callback] = []
    if measure is not None:
        optional.append(SampleValidation(measure, settings.steps_between_samples, best))
    if best is not None:
        optional.append(best)
    # One process looks, so that all resume from the same one.
    found = resumable_checkpoint(folder / _CHECKPOINTS) if group.leads else None
    checkpoint = group.broadcast(found)
    skipped = SkippedSteps(left_out)
    checkpoints = Checkpoints(folder / _CHECKPOINTS, settings.checkpoint_every)
    trainer = pl.Trainer(
        max_steps=settings.steps,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[torch.cuda.current_device()] if device.type == "cuda" else 1,
        num_nodes=group.size,
        strategy=build_strategy(settings, group),
        plugins=[WriteInPlace(), *([ConnectedGroup(group)] if group.size == 1 else [])],
        precision=precision,
        logger=logger,
        callbacks=[
            skipped,
            pace,
            validation,
            *optional,
            RoutingLog(settings.validate_every, settings.compile),
            checkpoints,
            Preemption(stop or StopRequest(), checkpoints.save),
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
    with lost_touch_as_user_error(group):
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
            group,
        )
        logger.log_metrics({METRIC: loss}, step=settings.steps)
        if best is not None:
            best.offer(settings.steps, {METRIC: loss}, module.ema_backbone)
    if best is not None:
        best.write()
    network = module.ema_backbone
    if group.leads:
        with atomic_path(folder / EMA_WEIGHTS) as temporary:
            save_model(network, str(temporary))
    summary = TrainingSummary(
        steps=trainer.global_step,
        validation_loss=loss,
        images_per_second=pace.images_per_second,
        precision=precision,
        resumed_from_step=step_of(checkpoint) if checkpoint else None,
        skipped_steps=tuple(sorted(skipped.steps)),
    )
    if group.leads:
        write_json(folder / _SUMMARY, summary, indent=2)
    return group.broadcast(summary)
