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
from harness.progress import Progress, ProgressListener, ignore_progress


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
    itself; a copy of it is one. Distances are in float64 and held a block at a time.

    Args:
        generated: (N, D), N more than both numbers of neighbours.
        real: (M, D), M more than both.
        neighbours: k of precision and recall.
        density_neighbours: k of density and coverage.
        on_progress: told after each block, in generated images.

    Raises:
        ValueError: too few images, different widths or a row that is not finite.
    """
    least = max(neighbours, density_neighbours) + 1
    around_real = Points(real, "real features", origin=None, least=least)
    check_widths(generated.shape[-1], real.shape[1])
    around_generated = Points(
        generated, "generated features", origin=around_real.origin, least=least
    )
    real_radii = squared_radii(around_real, neighbours)
    density_radii = squared_radii(around_real, density_neighbours)
    generated_radii = squared_radii(around_generated, neighbours)

    precise = balls = 0
    recalled = torch.zeros(len(around_real), dtype=torch.bool)
    covered = torch.zeros_like(recalled)
    for block in around_generated.blocks(around_real):
        precise += int(block.within(real_radii).any(dim=1).sum())
        recalled |= block.within(generated_radii[block.rows, None]).any(dim=0)
        in_density_balls = block.within(density_radii)
        balls += int(in_density_balls.sum())
        covered |= in_density_balls.any(dim=0)
        on_progress(Progress("precision and recall", block.rows.stop, len(around_generated)))
    return NeighbourScores(
        precision=precise / len(around_generated),
        recall=int(recalled.sum()) / len(around_real),
        density=balls / (density_neighbours * len(around_generated)),
        coverage=int(covered.sum()) / len(around_real),
    )
