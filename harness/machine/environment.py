"""Where the repository's own folders are.

CPU threads: how many cores a process may use, and how its children are told their share.

The versions of the libraries that a figure depends on.

The device that `--device` means for one process of a command.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import UserError

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[2]

EXPERIMENTS = ROOT / "experiments"

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""What the numeric libraries read as they are loaded; the first one also speaks for a user."""


def usable_cores() -> int:
    """Logical cores that this process may use: affinity and container quota respected."""
    from joblib import cpu_count

    return int(cpu_count())


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """By name; those that are not installed are left out."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


_LOCAL_RANK = ("LOCAL_RANK", "SLURM_LOCALID")
"""Of a process among those of its machine, as torchrun and srun tell it."""


def process_device(name: str) -> torch.device:
    """The device of this process: of several GPUs, the one of its rank on the machine.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    import torch

    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("--device is cuda, but PyTorch finds no GPU: use --device cpu or auto")
    rank = next((os.environ[key] for key in _LOCAL_RANK if key in os.environ), "0")
    return torch.device("cuda", int(rank) % torch.cuda.device_count())
