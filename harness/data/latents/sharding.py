"""Which shard holds which image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Sharding:
    """Images in shards, by their ids alone: the order in which they are listed does not matter.

    Args:
        ids: by row of the manifest.
        shards: how many.
    """

    rows: tuple[NDArray[np.int64], ...]
    """Of each shard, sorted by id."""
    shard: NDArray[np.int64]
    """Of each row."""
    place: NDArray[np.int64]
    """Of each row, within its shard."""

    def __init__(self, ids: Sequence[str], shards: int) -> None:
        held: list[list[int]] = [[] for _ in range(shards)]
        for row, image_id in enumerate(ids):
            held[_shard_of(image_id, shards)].append(row)
        for rows in held:
            rows.sort(key=ids.__getitem__)
        self.rows = tuple(np.array(rows, dtype=np.int64) for rows in held)
        self.shard = np.empty(len(ids), dtype=np.int64)
        self.place = np.empty(len(ids), dtype=np.int64)
        for number, rows_held in enumerate(self.rows):
            self.shard[rows_held] = number
            self.place[rows_held] = np.arange(len(rows_held))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Images in each shard."""
        return tuple(len(rows) for rows in self.rows)


def _shard_of(image_id: str, shards: int) -> int:
    digest = hashlib.sha256(image_id.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % shards
