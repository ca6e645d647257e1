"""Training one trial, from the beginning or from where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from safetensors.torch import load_model, save_model

from harness.config.schema import TrialConfig
from harness.config.sections import Weights
from harness.data.batches import TrainingData
from harness.data.images import DataSet
from harness.machine.files import DamagedFileError, atomic_path, file_digest, read_json, write_json
from harness.processes.group import ProcessGroup, current_group, lost_touch_as_user_error
from harness.processes.progress import ProgressListener, warn
from harness.processes.signals import StopRequest
from harness.training.build import build_backbone, build_module, check_batch
from harness.training.checkpoints import Checkpoints, WriteInPlace, resumable_checkpoint, step_of
from harness.training.export import weight_shapes
from harness.training.hardware import (
    ConnectedGroup,
    Precision,
    build_strategy,
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
    Measure,
    Validation,
    ValidationFigures,
    held_out_loss,
)
from harness.vocabulary.names import ARTIFACT_CONFIG
from models.backbone import Backbone
from models.diffusion_module import NonFiniteLossError
from models.errors import UserError, one_line

_SUMMARY = "trained.json"
EMA_WEIGHTS = "ema.safetensors"
_CHECKPOINTS = "checkpoints"
_REMEDY = (
    "remove {} and repeat the ablation's command, which makes both again from the last checkpoint"
)


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
    sha256: dict[str, str] = field(default_factory=dict)
    """Checksums of the files of weights, by their names; empty for trainings before there were."""


def finished_training(folder: Path) -> TrainingSummary | None:
    """The summary of a training that ended here, or None.

    Raises:
        DamagedFileError: the summary is damaged, or the weights are not those that training wrote.
    """
    path = folder / _SUMMARY
    if not path.exists():
        return None
    summary = read_json(path, TrainingSummary, remedy=_REMEDY.format(path))
    for name, digest in summary.sha256.items():
        weights = folder / name
        if not weights.exists() or file_digest(weights) != digest:
            what = "is damaged (its checksum is another one)" if weights.exists() else "is missing"
            raise DamagedFileError(f"{weights} {what}: {_REMEDY.format(path)}")
    return summary


def load_trained(folder: Path, config: TrialConfig, weights: Weights = "last") -> Backbone:
    """The network with the EMA weights that training left in a folder, on the CPU and in evaluation
    mode. No data set is needed.

    Raises:
        UserError: the best weights are asked for, but none were kept; or the weights do not fit the
            configuration.
    """
    path = folder / {"last": EMA_WEIGHTS, "best": BEST_WEIGHTS}[weights]
    if weights == "best" and not path.is_file():
        raise UserError(
            f"{folder} holds no best weights: train.best_by was null, or no validation gave a "
            "finite value; take the last weights"
        )
    shapes = weight_shapes(path)
    try:
        channels = shapes["patch_embedding.projection.weight"][1]
        num_classes = shapes["label_embedding.table.weight"][0] - 1
        side = config.data.side
        backbone = build_backbone(config, (channels, side, side), num_classes)
        load_model(backbone, path)
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"{folder}: its weights do not fit its {ARTIFACT_CONFIG}: {one_line(error, most=300)}"
        ) from error
    return backbone.eval()


@dataclass(frozen=True)
class Training:
    """The training of a trial, from the beginning or from where it stopped.

    All processes of the present group run it together. Any number of them may resume what another
    number began. The leading one writes the files.
    """

    config: TrialConfig
    data: DataSet
    """Training and held-out images."""
    folder: Path
    """Of the trial; gets `checkpoints/`, `ema.safetensors` and `trained.json`, and with
    `train.best_by` `best.safetensors` and `best.json`."""
    device: torch.device
    precision: Precision
    """As `resolve_precision` gives it."""
    logger: Logger
    listener: ProgressListener
    """Is told after every step."""
    measure: Measure | None = None
    """Draws and measures validation samples; None for a trial without them."""
    stop: StopRequest = field(default_factory=StopRequest)
    """Looked at after every step."""

    def run(self) -> TrainingSummary:
        """Train to the last step, resuming from the newest whole checkpoint in the folder.

        Raises:
            UserError: the loss stops being finite and no batch may be left out for it, the
                processes cannot share a batch evenly, another process failed, or `train.compile`
                finds no compiler.
            Preempted: a stop was requested; a checkpoint of the last step is saved.
        """
        group = current_group()
        done = group.broadcast(self._done_before() if group.leads else None)
        if done is not None:
            return done
        check_batch(self.config.train, group.size)
        left_out = group.broadcast(steps_left_out(self.folder) if group.leads else frozenset())
        while True:
            try:
                return self._attempt(left_out, group)
            except NonFiniteLossError as error:
                left_out = leave_out(error, left_out, self.config.train, self.folder, group)

    def _done_before(self) -> TrainingSummary | None:
        try:
            return finished_training(self.folder)
        except DamagedFileError as damage:
            warn(f"{damage}; it is done again now", self.listener)
            return None

    def _attempt(self, left_out: frozenset[int], group: ProcessGroup) -> TrainingSummary:
        """Train to the last step without the steps left out, and write the weights.

        Raises:
            NonFiniteLossError: another step has to be left out.
        """
        settings, train_set = self.config.train, self.data.train
        module = build_module(
            self.config, train_set.shape, len(train_set.class_names), is_sharded(settings, group)
        )
        if settings.compile:
            compile_blocks(module.backbone, self.device)

        def held_out(network: Backbone, _step: int) -> ValidationFigures:
            network, images = network.to(self.device), self.data.held_out
            with trainer.precision_plugin.forward_context():
                loss = held_out_loss(
                    network, module.objective, images, settings.batch_size, self.device, group
                )
            return ValidationFigures({METRIC: loss}, {METRIC: loss})

        best = None if settings.best_by is None else BestWeights(self.folder, settings.best_by)
        validation = Validation(held_out, settings.validate_every, best)
        pace = Pace(settings.batch_size, self.listener, settings.log_every)
        skipped = SkippedSteps(left_out)
        callbacks = [skipped, pace, validation, *self._later_callbacks(best), pace.restart]
        shapes = {name: part.shape for name, part in module.state_dict().items()}
        trainer = self._trainer(callbacks, group, shapes)
        # One process looks, so that all resume from the same one.
        checkpoint = group.broadcast(
            resumable_checkpoint(self.folder / _CHECKPOINTS, self.listener) if group.leads else None
        )
        with lost_touch_as_user_error(group):
            trainer.fit(
                module,
                datamodule=TrainingData(self.config, train_set),
                ckpt_path=checkpoint,
                weights_only=True,
            )
        if trainer.global_step < settings.steps:
            raise UserError(f"training stopped at step {trainer.global_step} of {settings.steps}")
        # A run that was stopped after its last checkpoint has nothing left to train.
        figures = validation.latest or validation.validate(trainer, module)
        if best is not None:
            best.write()
        network = module.ema_backbone
        if group.leads:
            with atomic_path(self.folder / EMA_WEIGHTS) as temporary:
                save_model(network, str(temporary))
        paths = (self.folder / name for name in (EMA_WEIGHTS, BEST_WEIGHTS))
        summary = TrainingSummary(
            steps=trainer.global_step,
            validation_loss=figures.logged[METRIC],
            images_per_second=pace.images_per_second,
            precision=self.precision,
            resumed_from_step=step_of(checkpoint) if checkpoint else None,
            skipped_steps=tuple(sorted(skipped.steps)),
            sha256={
                path.name: file_digest(path) for path in paths if group.leads and path.exists()
            },
        )
        if group.leads:
            write_json(self.folder / _SUMMARY, summary, indent=2)
        return group.broadcast(summary)

    def _later_callbacks(self, best: BestWeights | None) -> Iterator[pl.Callback]:
        """Those behind the validation loss; checkpoints come after all whose state they keep."""
        settings = self.config.train
        if self.measure is not None:
            yield Validation(self.measure, settings.steps_between_samples, best)
        if best is not None:
            yield best
        yield RoutingLog(settings.validate_every, settings.compile)
        yield Checkpoints(
            self.folder / _CHECKPOINTS, settings.checkpoint_every, settings.log_every, self.stop
        )

    def _trainer(
        self, callbacks: list[pl.Callback], group: ProcessGroup, shapes: dict[str, torch.Size]
    ) -> pl.Trainer:
        """Lightning's trainer without what this harness does itself."""
        on_gpu = self.device.type == "cuda"
        return pl.Trainer(
            max_steps=self.config.train.steps,
            accelerator="gpu" if on_gpu else "cpu",
            devices=[torch.cuda.current_device()] if on_gpu else 1,
            num_nodes=group.size,
            strategy=build_strategy(self.config.train, group),
            plugins=[WriteInPlace(shapes), *([ConnectedGroup(group)] if group.size == 1 else [])],
            precision=self.precision,
            logger=self.logger,
            callbacks=callbacks,
            log_every_n_steps=self.config.train.log_every,
            default_root_dir=self.folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
