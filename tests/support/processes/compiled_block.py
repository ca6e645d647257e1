"""Compile one block of default DyDiLA at the shapes of a scale and compare it with the plain one.

A program of its own, since a fault of the compiler aborts the process. Arguments: the scale's name.
Prints the largest difference of outputs, then of gradients, each in parts of the largest value.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from harness.config.load import load_ablation
from harness.training.build import backbone_config
from harness.training.hardware import compile_blocks
from models.backbone import Backbone


def difference(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-9)).item()


def main(scale: str) -> None:
    ablation = load_ablation(
        "baselines", scale=scale, seeds=1, overrides=(), experiments_dir=Path("experiments")
    )
    config = next(trial.config for trial in ablation.trials if trial.variant == "dydila")
    shape = (4, config.data.side, config.data.side)
    one_block = backbone_config(config, shape, 10).model_copy(update={"depth": 1})
    backbone = Backbone(one_block, seed=0)
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=stream))
    width, (rows, columns) = one_block.width, one_block.grid
    tokens = torch.randn(2, rows * columns, width, generator=stream)
    condition = torch.randn(2, width, generator=stream)
    block = backbone.blocks[0]
    found = []
    for compiled in (False, True):
        if compiled:
            compile_blocks(backbone, torch.device("cpu"))
        block.zero_grad()
        output = block(tokens, condition)
        output.square().mean().backward()
        gradients = [parameter.grad for parameter in block.parameters()]
        found.append((output.detach(), [gradient.clone() for gradient in gradients]))
    (plain, plain_gradients), (output, gradients) = found
    print(difference(output, plain), max(map(difference, gradients, plain_gradients)))


if __name__ == "__main__":
    main(sys.argv[1])
