"""Where the processes of one trial meet, see `harness.machine.place` for how they know.

Whoever waits says so, and for whom. The leading process may have to wait for the trial, as long as
another command runs it; the others wait for the leading one.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from harness.machine.place import Place
from harness.processes.group import ALONE, TIMEOUT, ProcessGroup
from harness.processes.signals import StopRequest
from models.errors import UserError, first_line

_BEGUN, _ENDED, _HERE = "begun", "ended", "here"

_LOOK_AGAIN = 2.0
"""Seconds that one try to connect may take."""
_PAUSE = 0.1
"""Seconds between two looks at what is waited for, and at whether to stop. A store's own wait with
a time limit writes two lines to the terminal whenever the time is over."""
_NOTICE = timedelta(seconds=10)
"""Of waiting for the others before it is said."""
_LOOPBACK = ("127.0.0.1", "localhost")


def talk_on_this_machine_only() -> None:
    """Gloo listens on the interface that the machine's name stands for; this makes it loopback."""
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    if loopback:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])


class Meeting:
    """A context from the start of a process to the end of what it does with the others."""

    def __init__(
        self, place: Place | None, timeout: timedelta = TIMEOUT, stop: StopRequest | None = None
    ) -> None:
        """`place` None makes a group of one; `timeout` is for each step of the common work, and
        `stop` is looked at while this process waits for the others."""
        self._place = place
        self._timeout = timeout
        self._stop = stop or StopRequest()
        self._store: TCPStore | None = None

    @property
    def leads(self) -> bool:
        return self._place is None or self._place.rank == 0

    def __enter__(self) -> Meeting:
        if self._place is not None:
            self._store = self._find(self._place)
            self._store.set_timeout(self._timeout)
        return self

    def _find(self, place: Place) -> TCPStore:
        keeps = self.leads and not place.kept_by_starter
        deadline = time.monotonic() + self._timeout.total_seconds()
        try:
            if not keeps:
                self._await_keeper(place, deadline)
            else:
                # A name that stands for no machine would be looked up again and again.
                socket.getaddrinfo(place.address, place.port)
            return TCPStore(
                place.address,
                place.port,
                place.size,
                is_master=keeps,
                timeout=max(_NOTICE, timedelta(seconds=deadline - time.monotonic())),
                wait_for_workers=False,
            )
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"process {place.rank} of {place.size} did not find the others at "
                f"{place.address}:{place.port}: {first_line(error)}"
            ) from error

    def _await_keeper(self, place: Place, deadline: float) -> None:
        """Until somebody listens at the place. A store that waits for that itself writes pages of
        its own to the terminal, between which nobody finds ours."""
        began = time.monotonic()
        told = False
        while True:
            try:
                with socket.create_connection((place.address, place.port), _LOOK_AGAIN):
                    return
            except OSError:
                self._stop.check("before the processes met")
                now = time.monotonic()
                if now > deadline:
                    raise
                if now - began > _NOTICE.total_seconds() and not told:
                    _say(place, f"waits for process 0 at {place.address}:{place.port}")
                    told = True
                time.sleep(_PAUSE)

    def begin(self, cuda: bool) -> ProcessGroup:
        """Connect with the others, to exchange tensors on GPUs as well if `cuda`.

        Raises:
            LostTouchError: one of them ended, or does not come in time.
            Preempted: a stop was requested while this one waited.
        """
        place, store = self._place, self._store
        if place is None or store is None:
            return ALONE
        group = ProcessGroup(place.rank, place.size, self._timeout)
        if place.address in _LOOPBACK:
            talk_on_this_machine_only()
        if cuda:
            torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
        try:
            self._tell_or_wait_for(store, _BEGUN)
            self._wait_for_all(store, place)
            # What is no tensor goes through gloo: its failures are exceptions, those of nccl end
            # the process.
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=store,
                rank=place.rank,
                world_size=place.size,
                timeout=self._timeout,
            )
        except RuntimeError as error:
            raise group.lost_touch(error) from error
        return group

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        # After an error the connections stay until the process ends: the others would stop because
        # of them before this one has said why.
        if error is None and self._store is not None and dist.is_initialized():
            # The leading process has more to do: schedulers end a job's other processes some time
            # after the first one, and connections of nccl are closed together.
            with suppress(RuntimeError):
                self._tell_or_wait_for(self._store, _ENDED)
            dist.destroy_process_group()

    def _tell_or_wait_for(self, store: TCPStore, key: str) -> None:
        """The leading process tells the others, which wait. Raises RuntimeError where the place is
        gone."""
        if self.leads:
            store.set(key, "yes")
            return
        while not store.check([key]):
            self._stop.check("while it waited for the leading process")
            time.sleep(_PAUSE)

    def _wait_for_all(self, store: TCPStore, place: Place) -> None:
        """Until each process has come, so that the wait can be told and ended."""
        store.set(f"{_HERE}{place.rank}", "yes")
        keys = [f"{_HERE}{rank}" for rank in range(place.size)]
        began = time.monotonic()
        told = False
        while not store.check(keys):
            self._stop.check("before the processes met")
            waited = timedelta(seconds=time.monotonic() - began)
            if waited > self._timeout:
                raise RuntimeError(f"{_missing(store, keys)} did not come")
            if waited > _NOTICE and not told:
                _say(
                    place, f"waits for {_missing(store, keys)}, which torchrun or srun should start"
                )
                told = True
            time.sleep(_PAUSE)


def _missing(store: TCPStore, keys: list[str]) -> str:
    """Those that have not come, in words."""
    missing = [str(rank) for rank, key in enumerate(keys) if not store.check([key])]
    return f"process{'es' if len(missing) > 1 else ''} {', '.join(missing)}"


def _say(place: Place, text: str) -> None:
    print(f"process {place.rank} of {place.size} {text}", file=sys.stderr, flush=True)
