"""The device that `--device` means for one process of a command."""

from __future__ import annotations

import os

import torch

from models.errors import UserError

_LOCAL_RANK = ("LOCAL_RANK", "SLURM_LOCALID")
"""Of a process among those of its machine, as torchrun and srun tell it."""


def process_device(name: str) -> torch.device:
    """The device of this process: of several GPUs, the one of its rank on the machine.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("--device is cuda, but PyTorch finds no GPU: use --device cpu or auto")
    rank = next((os.environ[key] for key in _LOCAL_RANK if key in os.environ), "0")
    return torch.device("cuda", int(rank) % torch.cuda.device_count())
