"""Which of several processes this one is, and the device that it gets, by its environment: torchrun
and this package set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, SLURM's srun its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.errors import UserError

if TYPE_CHECKING:
    import torch

TASK_VARIABLES = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR"),
    *("MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE", "SLURM_PROCID", "SLURM_LOCALID"),
    *("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_ID"),
)
"""What makes a process one of several. A process that is started for work of its own must not
inherit them."""

_SHELLS = ("interactive", "bash", "sh", "zsh", "fish", "csh", "tcsh")
"""What SLURM calls the job of a person who works at a prompt."""
_FIRST_PORT, _PORTS = 15000, 10000


@dataclass(frozen=True)
class Place:
    """This process among those that were started together."""

    rank: int
    size: int
    local_rank: int
    """Among those of its machine."""
    address: str
    port: int
    kept_by_starter: bool
    """Whether who started the processes keeps the meeting place; else the leading one does."""


def place_from_environment(environment: Mapping[str, str] = os.environ) -> Place | None:
    """What torchrun or SLURM tell this process, or None for one that is alone; raises a UserError
    where that is incomplete, or contradicts itself."""
    try:
        if int(environment.get("WORLD_SIZE", "1")) > 1:
            place = Place(
                rank=int(environment["RANK"]),
                size=int(environment["WORLD_SIZE"]),
                local_rank=int(environment.get("LOCAL_RANK", environment["RANK"])),
                address=environment["MASTER_ADDR"],
                port=int(environment["MASTER_PORT"]),
                kept_by_starter=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            )
        elif int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and _is_task(environment):
            place = _place_in_step(environment)
        else:
            return None
    except (KeyError, ValueError) as error:
        raise UserError(
            "the environment says that this process is one of several (WORLD_SIZE or "
            f"SLURM_STEP_NUM_TASKS), but not which one and where they meet ({error}): start it "
            "with torchrun or srun, or unset the two"
        ) from error
    if not 0 <= place.rank < place.size:
        raise UserError(
            f"the environment says that this process is number {place.rank} of {place.size}, but "
            f"numbers go from 0 to {place.size - 1}: see RANK and WORLD_SIZE"
        )
    if not 0 < place.port < 2**16:
        raise UserError(
            f"the environment says that processes meet at port {place.port}, but ports go from 1 "
            "to 65535: see MASTER_PORT"
        )
    return place


def _is_task(environment: Mapping[str, str]) -> bool:
    """Whether srun started this very process as a task. A shell in an interactive allocation has a
    task's variables too, and so has all that is typed there; srun's own have their process id."""
    at_a_prompt = environment.get("SLURM_JOB_NAME") in _SHELLS or "SLURM_PTY_PORT" in environment
    return not at_a_prompt or environment.get("SLURM_TASK_PID") == str(os.getpid())


def _place_in_step(environment: Mapping[str, str]) -> Place:
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_NODELIST"]
    # The same for all tasks of a step, another one for the next step of the job.
    number = int(environment["SLURM_JOB_ID"]) + 101 * int(environment.get("SLURM_STEP_ID", "0"))
    return Place(
        rank=int(environment["SLURM_PROCID"]),
        size=int(environment["SLURM_STEP_NUM_TASKS"]),
        local_rank=int(environment["SLURM_LOCALID"]),
        address=environment.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes),
        port=int(environment.get("MASTER_PORT") or _FIRST_PORT + number % _PORTS),
        kept_by_starter=False,
    )


def choose_device(name: str, setting: str = "--device") -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means for this process: of several GPUs, the one of
    its rank on the machine; a UserError where `setting` asks for a GPU and there is none."""
    import torch

    cuda = name != "cpu" and torch.cuda.is_available()
    if name == "cuda" and not cuda:
        raise UserError(
            f"{setting} is cuda, but PyTorch finds no usable CUDA device here: take cpu or auto"
        )
    if not cuda:
        return torch.device("cpu")
    place = place_from_environment()
    local_rank = place.local_rank if place else 0
    return torch.device("cuda", local_rank % torch.cuda.device_count())
