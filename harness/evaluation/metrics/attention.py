"""How smooth an attention matrix is, in numbers; pure functions of matrices.

`A` is the N x N matrix with which a head mixes its values. Its rows are divided by the sum of their
absolute values first, which changes nothing where they are positive and sum to one, and makes rows
with negative weights comparable. Row entropy and effective rank are those of the result.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from models.randomness import generator

_SMALLEST_SKETCH = 128
"""Directions of the first attempt to find a small range; below four times as many tokens a plain
decomposition is as quick."""
_RELATIVE_REST = 2e-6
"""What may lie outside the range found, in the Frobenius norm; the rounding of float32 leaves
4e-7 at 1,024 tokens."""


def normalized_rows(weights: Tensor) -> Tensor:
    """(..., N, N) rows divided by the sum of their absolute values; a row of zeros stays one."""
    sums = weights.abs().sum(dim=-1, keepdim=True)
    return weights / sums.clamp_min(torch.finfo(weights.dtype).tiny)


def empty_rows(normalized: Tensor) -> Tensor:
    """The share of rows that are zero, whose tokens attend to nothing; (..., N, N) to (...)."""
    return (normalized == 0).all(dim=-1).to(normalized.dtype).mean(dim=-1)


def row_entropy(normalized: Tensor) -> Tensor:
    """The mean entropy of the normalized rows' absolute values, divided by log N.

    It is 1 where every token attends to all alike and 0 where it attends to one. Rows of zeros have
    no entropy and are left out.

    Returns:
        (..., N, N) to (...), N at least 2; NaN where all rows are zero, or a weight is not finite.
    """
    used = (normalized != 0).any(dim=-1)
    entropies = torch.special.entr(normalized.abs()).sum(dim=-1) / math.log(normalized.shape[-1])
    return entropies.sum(dim=-1) / used.sum(dim=-1)


def effective_rank(normalized: Tensor) -> Tensor:
    """The exponential of the entropy of the singular values, divided by their sum.

    It is N where all directions count alike and 1 where every token gets the same.
    Source: Roy and Vetterli 2007.

    Returns:
        Normalized rows (B, N, N) to (B,); NaN where all rows are zero, or a weight is not finite.
    """
    finite = normalized.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        # A decomposition of what is not finite raises; one of zeros ends as 0 / 0 below.
        normalized = torch.where(finite[:, None, None], normalized, 0.0)
    values = _singular_values(normalized)
    shares = values / values.sum(dim=-1, keepdim=True)
    return torch.special.entr(shares).sum(dim=-1).exp()


def token_similarity(outputs: Tensor) -> Tensor:
    """The mean cosine similarity between two different tokens, such as of a head's `A v`.

    From the length of the sum of the N unit vectors, `|s|^2 = N + sum_(i != j) cos(i, j)`, so no
    N x N matrix is built. Tokens of zeros have no direction and are left out.

    Returns:
        (..., N, d) to (...), in [-1, 1]; NaN where fewer than two tokens are left.
    """
    units = F.normalize(outputs.double(), dim=-1, eps=torch.finfo(torch.float64).tiny)
    count = (outputs != 0).any(dim=-1).sum(dim=-1).double()
    squared = units.sum(dim=-2).square().sum(dim=-1)
    return (squared - count) / (count * (count - 1))


def _singular_values(matrices: Tensor) -> Tensor:
    """(B, N, N) to (B, n) with n at most N: those left out are zero up to rounding.

    Linear attention has a rank of at most its head's channels. At many tokens the range is looked
    for first with random directions (Halko et al. 2011) and the matrix projected onto it, which
    costs N^2 times its dimension instead of N^3; it is taken only where nothing is left outside.
    """
    tokens = matrices.shape[-1]
    directions = _SMALLEST_SKETCH
    while 4 * directions <= tokens:
        shape = (tokens, directions)
        sketch = torch.randn(shape, generator=generator("effective-rank", tokens, directions))
        basis = torch.linalg.qr(matrices @ sketch.to(matrices)).Q
        projected = basis.mT @ matrices
        rest = torch.linalg.matrix_norm(matrices - basis @ projected)
        if (rest <= _RELATIVE_REST * torch.linalg.matrix_norm(matrices)).all():
            return torch.linalg.svdvals(projected)
        directions *= 2
    return torch.linalg.svdvals(matrices)
