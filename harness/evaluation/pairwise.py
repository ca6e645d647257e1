"""Which points lie within which balls, by block, with ties decided exactly.

Squared distances come from one matrix product a block, `|x|^2 + |y|^2 - 2 x . y`, whose rounding
would decide at random where a point lies exactly on a sphere, as copies of training images do. The
few pairs that are closer to a sphere than the rounding are measured again, by differences.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from harness.evaluation.feature_matrix import Matrix, finite_features

ENTRIES_AT_ONCE = 2**23
"""Distances in memory at one time: 64 MiB, and as much for each step of a comparison."""


class Points:
    """(N, D) features with what their distances are computed from."""

    def __init__(self, features: Matrix, name: str, *, origin: Tensor | None, least: int) -> None:
        """Take features.

        Args:
            features: (N, D).
            name: for messages.
            origin: (D,), subtracted so that products are no larger than distances need; their own
                mean where None. Distances are taken between points of one origin.
            least: points needed.

        Raises:
            ValueError: too few points, or a row that is not finite.
        """
        self.exact = torch.from_numpy(finite_features(features, name, least=least))
        self.origin = self.exact.mean(dim=0) if origin is None else origin
        self.centred = self.exact - self.origin
        self.squares = self.centred.square().sum(dim=1)

    def __len__(self) -> int:
        return len(self.exact)

    def blocks(self, others: Points) -> Iterator[Block]:
        """The distances to all of the others, some rows at a time."""
        rows = max(1, ENTRIES_AT_ONCE // len(others))
        for start in range(0, len(self), rows):
            yield Block(self, others, slice(start, min(start + rows, len(self))))


class Block:
    """The distances between some points and all others."""

    def __init__(self, points: Points, others: Points, rows: slice) -> None:
        self.points, self.others, self.rows = points, others, rows
        sums = points.squares[rows, None] + others.squares
        self.squared = sums - 2 * points.centred[rows] @ others.centred.T
        """(B, M), up to `error`."""
        eps = float(np.finfo(np.float64).eps)
        self.error = sums.mul_(4 * eps * (points.exact.shape[1] + 4))
        """(B, M): the bound for a matrix product in any order, and the rounding of the sums."""

    def within(self, squared_radii: Tensor) -> Tensor:
        """(B, M) whether two points are no farther apart than a radius: spheres belong to balls.

        Args:
            squared_radii: (M,), of balls around the others, or (B, 1) around the points.
        """
        radii = squared_radii.expand(self.squared.shape)
        inside = self.squared <= radii
        unsure = ((self.squared - radii).abs_() <= self.error).nonzero()
        at_once = max(1, ENTRIES_AT_ONCE // self.points.exact.shape[1])
        for row, column in (part.unbind(dim=1) for part in unsure.split(at_once)):
            inside[row, column] = self._exact(row, column) <= radii[row, column]
        return inside

    def neighbours(self, order: int) -> Tensor:
        """(B,) squared distance to the neighbour of that order, where the others are the points.

        A point is no neighbour of itself; a copy of it is one, at distance zero.
        """
        selves = torch.arange(self.rows.start, self.rows.stop)
        rows = torch.arange(len(selves))
        self.squared[rows, selves] = torch.inf
        nearest = self.squared.topk(order, dim=1, largest=False, sorted=True).indices
        return self._exact(rows, nearest[:, order - 1])

    def _exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        ours = self.points.exact[rows + self.rows.start]
        return (ours - self.others.exact[columns]).square_().sum(dim=1)


def squared_radii(points: Points, order: int) -> Tensor:
    """(N,): of each point, the squared distance to its neighbour of that order, without itself.

    Raises:
        ValueError: fewer points than that.
    """
    if not 1 <= order < len(points):
        raise ValueError(f"{len(points)} points have no neighbour number {order}")
    return torch.cat([block.neighbours(order) for block in points.blocks(points)])
