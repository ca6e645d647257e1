"""Where the processes of one trial find each other.

Whoever starts them says where: torchrun and this package's local launcher by torchrun's variables
(RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), SLURM by its own.

Talk between the processes of one machine, which is nobody else's business.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from harness.processes.group import ALONE, TIMEOUT, ProcessGroup
from models.errors import UserError

_INTERFACE = "GLOO_SOCKET_IFNAME"


def talk_on_this_machine_only() -> None:
    """Gloo listens on the interface that the machine's name stands for; this makes it loopback."""
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    if loopback:
        os.environ.setdefault(_INTERFACE, loopback[0])


_BEGUN, _ENDED = "begun", "ended"

_LOOK_AGAIN = timedelta(seconds=20)

_LOOPBACK = ("127.0.0.1", "localhost")


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
    """What torchrun or SLURM tell this process, or None for one that is alone.

    Raises:
        UserError: what they tell is incomplete.
    """
    try:
        if int(environment.get("WORLD_SIZE", "1")) > 1:
            return Place(
                rank=int(environment["RANK"]),
                size=int(environment["WORLD_SIZE"]),
                local_rank=int(environment.get("LOCAL_RANK", environment["RANK"])),
                address=environment["MASTER_ADDR"],
                port=int(environment["MASTER_PORT"]),
                kept_by_starter=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            )
        # Of the tasks that one srun started; sbatch's script alone is no task.
        if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
            from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

            slurm = SLURMEnvironment(auto_requeue=False)
            return Place(
                rank=int(environment["SLURM_PROCID"]),
                size=int(environment["SLURM_STEP_NUM_TASKS"]),
                local_rank=int(environment["SLURM_LOCALID"]),
                address=slurm.main_address,
                port=slurm.main_port,
                kept_by_starter=False,
            )
    except (KeyError, ValueError) as error:
        raise UserError(
            "the environment says that this process is one of several (WORLD_SIZE or "
            f"SLURM_STEP_NUM_TASKS), but not which one and where they meet ({error}): start it "
            "with torchrun or srun, or unset the two"
        ) from error
    return None


class Meeting:
    """A context from the start of a process to the end of what it does with the others.

    The leading process may have to wait for the trial, as long as another command runs it. The
    others wait for it in `begin`: without a limit, but not longer than the meeting place is there.

    Args:
        place: of this process; None makes a group of one.
        timeout: for each step of their common work.
    """

    def __init__(self, place: Place | None, timeout: timedelta = TIMEOUT) -> None:
        self._place = place
        self._timeout = timeout
        self._store: TCPStore | None = None

    @property
    def leads(self) -> bool:
        return self._place is None or self._place.rank == 0

    def __enter__(self) -> Meeting:
        place = self._place
        if place is not None:
            keeps = self.leads and not place.kept_by_starter
            try:
                self._store = TCPStore(
                    place.address,
                    place.port,
                    place.size,
                    is_master=keeps,
                    timeout=self._timeout,
                    wait_for_workers=False,
                )
            except RuntimeError as error:
                raise self._not_met(place, error) from error
        return self

    def begin(self, cuda: bool) -> ProcessGroup:
        """Connect with the others.

        Args:
            cuda: whether tensors on GPUs will be exchanged as well.

        Raises:
            LostTouchError: one of them ended, or does not come in time.
        """
        place = self._place
        if place is None:
            return ALONE
        assert self._store is not None
        group = ProcessGroup(place.rank, place.size, self._timeout)
        if place.address in _LOOPBACK:
            talk_on_this_machine_only()
        if cuda:
            torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
        try:
            self._wait_for_the_leading_one(self._store)
            # What is no tensor goes through gloo: its failures are exceptions, those of nccl end
            # the process.
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=self._store,
                rank=place.rank,
                world_size=place.size,
                timeout=self._timeout,
            )
        except RuntimeError as error:
            raise group.lost_touch(error) from error
        return group

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After an error the connections stay until the process ends: the others would stop because
        # of them before this one has said why.
        if error is None and self._place is not None and dist.is_initialized():
            self._wait_for_the_end()
            dist.destroy_process_group()

    def _wait_for_the_end(self) -> None:
        """Until the leading process, which has more to do, is done: schedulers end a job's other
        processes some time after the first one, and connections of nccl are closed together."""
        assert self._store is not None
        if self.leads:
            self._store.set(_ENDED, "yes")
            return
        with suppress(RuntimeError):
            self._wait_for(self._store, _ENDED)

    def _wait_for_the_leading_one(self, store: TCPStore) -> None:
        if self.leads:
            store.set(_BEGUN, "yes")
            return
        self._wait_for(store, _BEGUN)

    def _wait_for(self, store: TCPStore, key: str) -> None:
        """Raises RuntimeError where the place is gone."""
        while True:
            try:
                store.wait([key], _LOOK_AGAIN)
            except dist.DistStoreError:
                store.check([key])
            else:
                return

    def _not_met(self, place: Place, error: RuntimeError) -> UserError:
        return UserError(
            f"process {place.rank} of {place.size} did not find the others at "
            f"{place.address}:{place.port}: {str(error).splitlines()[0]}"
        )
