"""The processes that work on one task together, and what they tell one another.

A task that runs alone is a group of one; code that takes a group needs no second path for it.

Work is shared out in rounds: in round r of a group of n, the process of rank k works on item
r n + k, and the leading process gathers what all of them found. So it sees every item exactly once
and in order, however many processes there are, and never holds more than one round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

from harness.processes.jobs import LostTouchError
from models.errors import UserError, first_line

Value = TypeVar("Value")

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: far more than what one does alone (a checkpoint on a
slow disk, a figure of all samples), far less than a night for which it would hold its GPUs."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process's place among those of a task."""

    rank: int
    size: int
    timeout: timedelta = TIMEOUT

    @property
    def leads(self) -> bool:
        """Whether this is the one process that writes files and talks to the user."""
        return self.rank == 0

    def gather(self, value: Value) -> list[Value] | None:
        """The values of all processes in the order of their ranks, on the leading one; None on the
        others. All processes must call it; values may differ in size. Raises `LostTouchError`."""
        if self.size == 1:
            return [value]
        values: list[Value | None] | None = [None] * self.size if self.leads else None
        self._together(lambda: dist.gather_object(value, values, dst=0))
        return values  # type: ignore[return-value]

    def broadcast(self, value: Value) -> Value:
        """The leading process's value, on all processes; those of the others are ignored. Raises
        `LostTouchError`."""
        if self.size == 1:
            return value
        held: list[Value] = [value]
        self._together(lambda: dist.broadcast_object_list(held, src=0))
        return held[0]

    def _together(self, call: Callable[[], None]) -> None:
        try:
            call()
        except RuntimeError as error:
            raise self.lost_touch(error) from error

    def lost_touch(self, error: Exception) -> LostTouchError:
        """The error for the user that one of torch.distributed stands for."""
        return LostTouchError(
            f"process {self.rank} of {self.size} lost touch with the others, so it stops: one of "
            f"them failed (its own message says why), or took longer than {self.timeout}: "
            f"{first_line(error)}"
        )


ALONE = ProcessGroup(0, 1)

_SIGNS = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "process group")
"""Words of which one stands in what torch.distributed says; not all that it raises has a type of
its own."""


@contextmanager
def lost_touch_as_user_error(group: ProcessGroup) -> Iterator[None]:
    """Context in which libraries run that use torch.distributed by themselves: raises
    `LostTouchError` where a collective failed."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        of_others = isinstance(error, dist.DistError) or any(sign in text for sign in _SIGNS)
        if group.size == 1 or not of_others:
            raise
        raise group.lost_touch(error) from error


def current_group() -> ProcessGroup:
    """The group that `torch.distributed` was set up with, or a group of one."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return ProcessGroup(dist.get_rank(), dist.get_world_size())


def own_turns(count: int, group: ProcessGroup) -> range:
    """Which of `count` items this process works on."""
    return range(group.rank, count, group.size)


def in_rounds(own: Iterator[Value], count: int, group: ProcessGroup) -> Iterator[list[Value]]:
    """Work, and gather: `own` works on the items of `own_turns` and gives what it found. All of the
    group's processes must iterate to the end, and only the leading one is given anything: what all
    found in each round, in the order of the items.

    Raises:
        UserError: what `own` raises, on the process where it does and on the leading one; or
            another process ended.
    """
    if group.size == 1:
        for found in own:
            yield [found]
        return
    for first in range(0, count, group.size):
        mine: list[Value] = []
        mistake: UserError | None = None
        if first + group.rank < count:
            try:
                mine.append(next(own))
            except UserError as error:
                mistake = error
        told = group.gather((mine, mistake))
        for _, theirs in [(mine, mistake), *(told or [])]:
            if theirs is not None:
                raise theirs
        if told is not None:
            yield [found for part, _ in told for found in part]
