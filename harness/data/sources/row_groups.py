"""The groups of rows of parquet files that were used last."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable

import pyarrow as pa

_MOST = 256 * 2**20
"""Bytes kept in a process; a larger group is kept alone."""

Key = tuple[int, int]


class RowGroups:
    """A cache for several threads. Other processes, forked or sent a copy, begin with an empty one.

    Args:
        most: bytes kept.
    """

    def __init__(self, most: int = _MOST) -> None:
        self.most = most
        self._begin()

    def get(self, key: Key, read: Callable[[], pa.ChunkedArray]) -> pa.ChunkedArray:
        """The group of rows that is kept, or else read now and kept."""
        # A fork may happen while another thread holds the lock, which then stays locked for ever.
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        # Two threads may read the same group; holding the lock would make all of them wait.
        rows = read()
        with self._lock:
            self._kept[key] = rows
            while (
                len(self._kept) > 1 and sum(each.nbytes for each in self._kept.values()) > self.most
            ):
                self._kept.popitem(last=False)
        return rows

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, pa.ChunkedArray] = OrderedDict()
        self._process = os.getpid()

    def __reduce__(self) -> tuple[type[RowGroups], tuple[int]]:
        return RowGroups, (self.most,)
