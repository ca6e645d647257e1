"""The same training steps in a plain PyTorch loop: what the harness's own cost is measured against.

Network, loss, noise, optimizer, schedule, clipping and EMA are those of the trainer, so the weights
are too, bit by bit. There is no trainer, no callback, no logging, no check and no checkpoint.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from harness.config.schema import TrialConfig
from harness.data.batches import BatchOrder, draw_order, loader_of
from harness.data.images import ImageSet
from harness.training.build import build_module
from harness.training.hardware import Precision
from models.diffusion_module import Batch


class BareLoop:
    """One process's training, step by step.

    Args:
        config: of the trial; one rate of learning for all weights, no accumulation.
        images: the training images.
        device: where to train.
        precision: resolved.
    """

    def __init__(
        self, config: TrialConfig, images: ImageSet, device: torch.device, precision: Precision
    ) -> None:
        train = config.train
        self.config = config
        self.images = images
        self.device = device
        self.half = precision == "bf16-mixed"
        self.module = build_module(config, images.shape, len(images.class_names)).to(device)
        self.network = self.module.backbone
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=train.learning_rate,
            betas=train.betas,
            weight_decay=train.weight_decay,
            fused=True,
        )
        warmup = max(train.warmup_steps, 1)
        self.schedule = LambdaLR(self.optimizer, lambda step: min((step + 1) / warmup, 1.0))
        average = get_ema_multi_avg_fn(train.ema_decay)
        self.ema = AveragedModel(self.network, multi_avg_fn=average)

    def batches(self) -> DataLoader[Batch]:
        """Those of all steps, in order."""
        order = BatchOrder(draw_order(self.config, self.images), 0, self.config.train.steps)
        return loader_of(self.images, order, self.config.seed, self.config.data.workers)

    def step(self, batch: Batch) -> Tensor:
        """Train on a batch; its mean loss."""
        batch = Batch(*(part.to(self.device) for part in batch))
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            loss = self.module.batch_losses(batch).mean()
        loss.backward()
        limit = self.config.train.gradient_clip or float("inf")
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        self.optimizer.step()
        self.schedule.step()
        self.ema.update_parameters(self.network)
        return loss.detach()
