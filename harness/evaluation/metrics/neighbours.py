"""Fidelity and variety, told apart: precision and recall, density and coverage.

Around each image of a set lies a ball that reaches to its k-th neighbour in the set. Precision is
the share of generated images within some ball of a real one, recall the share of real images within
some ball of a generated one (Kynkaanniemi et al. 2019). Density counts the balls of real images
that a generated one lies in, over k; coverage is the share of real balls that hold a generated
image (Naeem et al. 2020). Density can be above 1; the others lie in [0, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from harness.evaluation.feature_matrix import Matrix, check_widths
from harness.evaluation.pairwise import Points, squared_radii
from harness.processes.progress import Progress, ProgressListener, ignore_progress


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
    itself; a copy of it is one. Distances are in float64, and they and the features in float64 are
    held a block at a time.

    Args:
        generated: (N, D), N more than both numbers of neighbours.
        real: (M, D), M more than both.
        neighbours: k of precision and recall.
        density_neighbours: k of density and coverage.
        on_progress: told how many images' neighbours are known, and then how many generated images
            are compared.

    Raises:
        ValueError: too few images, different widths or a row that is not finite.
    """
    least = max(neighbours, density_neighbours) + 1
    around_real = Points(real, "real features", origin=None, least=least)
    check_widths(generated.shape[-1], real.shape[1])
    around_generated = Points(
        generated, "generated features", origin=around_real.origin, least=least
    )
    real_radii, density_radii = squared_radii(
        around_real, (neighbours, density_neighbours), on_progress=on_progress
    )
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
