"""Compiling the blocks of a network with torch.compile."""

from __future__ import annotations

import torch

from models.backbone import Backbone
from models.errors import UserError


def compile_blocks(backbone: Backbone, device: torch.device) -> None:
    """Compile each block, in place, so that names of parameters stay as they are.

    All blocks have the same code, so the compiler runs once and not once a block.

    Raises:
        UserError: nothing can be compiled on this machine.
    """
    _check_compiler(device)
    for block in backbone.blocks:
        block.compile(dynamic=False)


def _check_compiler(device: torch.device) -> None:
    """Compile something tiny: a failure in the middle of a network has pages of text."""

    def double(values: torch.Tensor) -> torch.Tensor:
        return (values + values).relu()

    try:
        torch.compile(double)(torch.ones(8, device=device))
    except Exception as error:
        cause = error
        if isinstance(error, torch._dynamo.exc.BackendCompilerFailed):
            cause = error.inner_exception
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        needed = "Triton" if device.type == "cuda" else "a C++ compiler such as g++"
        raise UserError(
            f"train.compile is true, but torch.compile does not work here (it needs {needed}): "
            f"{lines[0] if lines else type(cause).__name__}; install what is missing, or set "
            "train.compile=false"
        ) from error
