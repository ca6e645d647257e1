"""Where the processes of one trial meet, see `harness.machine.place` for how they know.

Whoever waits says so, and for whom. The leading process may have to wait for the trial, as long as
another command runs it; the others wait for the leading one.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from harness.machine.place import Place
from harness.processes.group import ALONE, TIMEOUT, ProcessGroup
from harness.processes.signals import StopRequest
from models.errors import UserError, first_line

_INTERFACE = "GLOO_SOCKET_IFNAME"


def talk_on_this_machine_only() -> None:
    """Gloo listens on the interface that the machine's name stands for; this makes it loopback."""
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    if loopback:
        os.environ.setdefault(_INTERFACE, loopback[0])


_BEGUN, _ENDED, _HERE = "begun", "ended", "here"

_LOOK_AGAIN = timedelta(seconds=2)
"""How often who waits looks whether it shall stop."""

_NOTICE_SECONDS = 10.0
"""Of waiting for the others before it is said."""

_LOOPBACK = ("127.0.0.1", "localhost")


class Meeting:
    """A context from the start of a process to the end of what it does with the others.

    Args:
        place: of this process; None makes a group of one.
        timeout: for each step of their common work.
        stop: looked at while this process waits for the others.
    """

    def __init__(
        self, place: Place | None, timeout: timedelta = TIMEOUT, stop: StopRequest | None = None
    ) -> None:
        self._place = place
        self._timeout = timeout
        self._stop = stop or StopRequest()
        self._store: TCPStore | None = None

    @property
    def leads(self) -> bool:
        return self._place is None or self._place.rank == 0

    def __enter__(self) -> Meeting:
        place = self._place
        if place is None:
            return self
        keeps = self.leads and not place.kept_by_starter
        began = time.monotonic()
        told = False
        while self._store is None:
            left = self._timeout - timedelta(seconds=time.monotonic() - began)
            try:
                self._store = TCPStore(
                    place.address,
                    place.port,
                    place.size,
                    is_master=keeps,
                    timeout=min(timedelta(seconds=_NOTICE_SECONDS), left),
                    wait_for_workers=False,
                )
            except RuntimeError as error:
                self._stop.check("before the processes met")
                if keeps or left <= timedelta(seconds=_NOTICE_SECONDS):
                    raise self._not_met(place, error) from error
                if not told:
                    self._say(f"waits for process 0 at {place.address}:{place.port}")
                told = True
        self._store.set_timeout(self._timeout)
        return self

    def begin(self, cuda: bool) -> ProcessGroup:
        """Connect with the others.

        Args:
            cuda: whether tensors on GPUs will be exchanged as well.

        Raises:
            LostTouchError: one of them ended, or does not come in time.
            Preempted: a stop was requested while this one waited.
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
            self._wait_for_all(self._store, group)
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

    def _wait_for_all(self, store: TCPStore, group: ProcessGroup) -> None:
        """Until each process has come, so that the wait can be told and ended."""
        store.set(f"{_HERE}{group.rank}", "yes")
        began = time.monotonic()
        told = False
        while True:
            missing = [rank for rank in range(group.size) if not store.check([f"{_HERE}{rank}"])]
            waited = time.monotonic() - began
            if not missing:
                return
            self._stop.check("before the processes met")
            if waited > self._timeout.total_seconds():
                raise RuntimeError(f"{_processes(missing)} did not come")
            if waited > _NOTICE_SECONDS and not told:
                self._say(f"waits for {_processes(missing)}, which torchrun or srun should start")
                told = True
            with suppress(dist.DistStoreError):
                store.wait([f"{_HERE}{missing[0]}"], _LOOK_AGAIN)

    def _wait_for(self, store: TCPStore, key: str) -> None:
        """Raises RuntimeError where the place is gone."""
        while True:
            try:
                store.wait([key], _LOOK_AGAIN)
            except dist.DistStoreError:
                store.check([key])
                self._stop.check("while it waited for the leading process")
            else:
                return

    def _say(self, text: str) -> None:
        assert self._place is not None
        print(
            f"process {self._place.rank} of {self._place.size} {text}", file=sys.stderr, flush=True
        )

    def _not_met(self, place: Place, error: RuntimeError) -> UserError:
        return UserError(
            f"process {place.rank} of {place.size} did not find the others at "
            f"{place.address}:{place.port}: {first_line(error)}"
        )


def _processes(ranks: Sequence[int]) -> str:
    return f"process{'es' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
