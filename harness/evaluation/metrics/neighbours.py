"""Fidelity and variety, told apart: precision and recall, density and coverage.

Around each image of a set lies a ball that reaches to its k-th neighbour in the set. Precision is
the share of generated images within some ball of a real one, recall the share of real images within
some ball of a generated one (Kynkaanniemi et al. 2019). Density counts the balls of real images
that a generated one lies in, over k; coverage is the share of real balls that hold a generated
image (Naeem et al. 2020). Density can be above 1; the others lie in [0, 1].

Distances are compared by block, with ties decided exactly. Squared distances come from one matrix
product a block, `|x|^2 + |y|^2 - 2 x . y`, whose rounding would decide at random where a point lies
exactly on a sphere, as copies of training images do. The few pairs that are closer to a sphere than
the rounding are measured again, by differences. Features are brought to float64 a block at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isqrt
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.evaluation.metrics.frechet import Matrix, check_features, check_widths
from harness.processes.progress import Progress, ProgressListener, ignore_progress

ENTRIES_AT_ONCE = 2**22
"""Distances in memory at one time: 32 MiB, as much for each step of a comparison, and for the
features of each side at 2,048 dimensions."""


class NeighbourScores(NamedTuple):
    """All of them; figures of other counts of images do not compare."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbour_scores(
    generated: Matrix,
    real: Matrix,
    *,
    neighbours: int = 3,
    density_neighbours: int = 5,
    on_progress: ProgressListener = ignore_progress,
) -> NeighbourScores:
    """Compare generated images with real ones.

    A ball holds its sphere: a point exactly as far as the k-th neighbour is inside, in all four
    figures, as in the authors' code of precision and recall (that of density and coverage leaves it
    out). So a set has precision, recall and coverage 1 to itself. An image is no neighbour of
    itself; a copy of it is one.

    Args:
        generated: (N, D), N more than both numbers of neighbours.
        real: (M, D), M more than both.
        neighbours: k of precision and recall.
        density_neighbours: k of density and coverage.
        on_progress: told how many images' neighbours are known, and how many are compared.

    Raises:
        ValueError: too few images, different widths or a row that is not finite.
    """
    least = max(neighbours, density_neighbours) + 1
    around_real = Points(real, "real features", origin=None, least=least)
    check_widths(generated.shape[-1], real.shape[1])
    around_generated = Points(
        generated, "generated features", origin=around_real.origin, least=least
    )
    orders = (neighbours, density_neighbours)
    real_radii, density_radii = squared_radii(around_real, orders, on_progress=on_progress)
    (generated_radii,) = squared_radii(around_generated, (neighbours,), on_progress=on_progress)

    balls = 0
    precise = torch.zeros(len(around_generated), dtype=torch.bool)
    recalled = torch.zeros(len(around_real), dtype=torch.bool)
    covered = torch.zeros_like(recalled)
    for block in around_generated.blocks(around_real):
        rows, columns = block.rows, block.columns
        precise[rows] |= block.within(real_radii[columns]).any(dim=1)
        recalled[columns] |= block.within(generated_radii[rows, None]).any(dim=0)
        in_density_balls = block.within(density_radii[columns])
        balls += int(in_density_balls.sum())
        covered[columns] |= in_density_balls.any(dim=0)
        if columns.stop == len(around_real):
            on_progress(Progress("precision and recall", rows.stop, len(around_generated)))
    return NeighbourScores(
        precision=int(precise.sum()) / len(around_generated),
        recall=int(recalled.sum()) / len(around_real),
        density=balls / (density_neighbours * len(around_generated)),
        coverage=int(covered.sum()) / len(around_real),
    )


class Points:
    """(N, D) features, which are not copied, with what their distances are computed from."""

    def __init__(self, features: Matrix, name: str, *, origin: Tensor | None, least: int) -> None:
        """Centre on an origin (D,) float64, so that products are no larger than distances need.

        It is their own mean where None; distances are taken between points of one origin.

        Raises:
            ValueError: fewer points than `least`, or a row that is not finite.
        """
        check_features(features, name, least=least)
        self._features = features
        self.dimensions = features.shape[1]
        if origin is None:
            sums = [self.exact(rows).sum(dim=0) for rows in self.slices()]
            origin = torch.stack(sums).sum(dim=0) / len(self)
        self.origin = origin
        self.squares = torch.cat(
            [self.centred(rows).square_().sum(dim=1) for rows in self.slices()]
        )

    def __len__(self) -> int:
        return len(self._features)

    def exact(self, rows: slice | Tensor) -> Tensor:
        """(B, D) float64, as they were given."""
        chosen = rows.numpy() if isinstance(rows, Tensor) else rows
        return torch.from_numpy(self._features[chosen].astype(np.float64))

    def centred(self, rows: slice) -> Tensor:
        """(B, D) float64, without the origin."""
        return self.exact(rows).sub_(self.origin)

    def slices(self) -> Iterator[slice]:
        """Consecutive rows, whose distances to as many others are computed at once."""
        at_once = max(1, isqrt(ENTRIES_AT_ONCE))
        for start in range(0, len(self), at_once):
            yield slice(start, min(start + at_once, len(self)))

    def blocks(self, others: Points) -> Iterator[Block]:
        """The distances to all of the others, all of those of some rows one after another.

        To the points themselves, only those from the diagonal on: the rest is the same.
        """
        for rows in self.slices():
            centred = self.centred(rows)
            for columns in others.slices():
                if others is not self or columns.start >= rows.start:
                    yield Block(self, others, rows, columns, centred)


class Block:
    """The distances between some points and some others."""

    def __init__(
        self, points: Points, others: Points, rows: slice, columns: slice, centred: Tensor
    ) -> None:
        self.points, self.others, self.rows, self.columns = points, others, rows, columns
        sums = points.squares[rows, None] + others.squares[columns]
        self.squared = torch.addmm(sums, centred, others.centred(columns).T, alpha=-2)
        """(B, C), up to `error`."""
        eps = float(np.finfo(np.float64).eps)
        self.error = sums.mul_(4 * eps * (points.dimensions + 4))
        """(B, C): the bound for a matrix product in any order, and the rounding of the sums."""

    def within(self, squared_radii: Tensor) -> Tensor:
        """(B, C) whether two points are no farther apart than a radius: spheres belong to balls.

        Args:
            squared_radii: (C,), of balls around the others, or (B, 1) around the points.
        """
        radii = squared_radii.expand(self.squared.shape)
        inside = self.squared <= radii
        unsure = ((self.squared - radii).abs_() <= self.error).nonzero()
        at_once = max(1, ENTRIES_AT_ONCE // self.points.dimensions)
        for row, column in (part.unbind(dim=1) for part in unsure.split(at_once)):
            ours, theirs = row + self.rows.start, column + self.columns.start
            exact = _exact_distances(self.points, ours, self.others, theirs)
            inside[row, column] = exact <= radii[row, column]
        return inside


def _exact_distances(points: Points, rows: Tensor, others: Points, columns: Tensor) -> Tensor:
    """(P,) squared distances of pairs, by differences."""
    return (points.exact(rows) - others.exact(columns)).square_().sum(dim=1)


def squared_radii(
    points: Points, orders: Sequence[int], *, on_progress: ProgressListener = ignore_progress
) -> tuple[Tensor, ...]:
    """Of each of N points, the squared distances (N,) to its neighbours of some orders.

    Order 1 is the nearest neighbour. A point is no neighbour of itself; a copy of it is one, at
    distance zero. Distances are the same both ways, so half of them are computed.

    Raises:
        ValueError: fewer points than an order.
    """
    for order in orders:
        if not 1 <= order < len(points):
            raise ValueError(f"{len(points)} points have no neighbour number {order}")
    nearest = _Nearest(len(points), max(orders))
    for block in points.blocks(points):
        if block.columns == block.rows:
            block.squared.fill_diagonal_(torch.inf)
        else:
            nearest.take(block.columns, block.rows, block.squared.T)
        nearest.take(block.rows, block.columns, block.squared)
        if block.columns.stop == len(points):
            on_progress(Progress("neighbours", block.rows.stop, len(points)))

    def distances(rows: slice, order: int) -> Tensor:
        own = torch.arange(rows.start, rows.stop)
        return _exact_distances(points, own, points, nearest.indices[rows, order - 1])

    return tuple(torch.cat([distances(rows, k) for rows in points.slices()]) for k in orders)


class _Nearest:
    """The nearest neighbours so far, in order."""

    def __init__(self, count: int, order: int) -> None:
        self._squared = torch.full((count, order), torch.inf, dtype=torch.float64)
        self.indices = torch.zeros((count, order), dtype=torch.int64)
        """(N, K)."""

    def take(self, rows: slice, columns: slice, squared: Tensor) -> None:
        """Take in the distances (B, C) of some points to some others."""
        order = self.indices.shape[1]
        found = squared.topk(min(order, squared.shape[1]), dim=1, largest=False)
        values = torch.cat([self._squared[rows], found.values], dim=1)
        indices = torch.cat([self.indices[rows], found.indices + columns.start], dim=1)
        best = values.topk(order, dim=1, largest=False, sorted=True)
        self._squared[rows] = best.values
        self.indices[rows] = indices.gather(1, best.indices)
