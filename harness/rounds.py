"""Work shared out among processes in rounds, its results in the order in which one would give them.

In round r of a group of n, the process of rank k works on item r n + k, and the leading process
gathers what all of them found. So it sees every item exactly once and in order, however many
processes there are, and never holds more than one round.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from harness.processes.group import ProcessGroup
from models.errors import UserError

Found = TypeVar("Found")


def own_turns(count: int, group: ProcessGroup) -> range:
    """Which of `count` items this process works on."""
    return range(group.rank, count, group.size)


def in_rounds(own: Iterator[Found], count: int, group: ProcessGroup) -> Iterator[list[Found]]:
    """Work, and gather.

    Args:
        own: works on the items of `own_turns`, one after another, and gives what it found.
        count: of the items of all processes.
        group: all of its processes must iterate to the end.

    Returns:
        On the leading process, what all found in each round, in the order of the items. On the
        others nothing, but they work as they are iterated.

    Raises:
        UserError: what `own` raises, on the process where it does and on the leading one; or
            another process ended.
    """
    if group.size == 1:
        for found in own:
            yield [found]
        return
    for first in range(0, count, group.size):
        mine: list[Found] = []
        mistake: UserError | None = None
        if first + group.rank < count:
            try:
                mine.append(next(own))
            except UserError as error:
                mistake = error
        told = group.gather((mine, mistake))
        if mistake is not None:
            raise mistake
        if told is None:
            continue
        for _, theirs in told:
            if theirs is not None:
                raise theirs
        yield [found for part, _ in told for found in part]
