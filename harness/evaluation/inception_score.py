"""The Inception score, from logits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from harness.evaluation.feature_matrix import Matrix, finite_features


class InceptionScore(NamedTuple):
    """Mean and population standard deviation over the splits."""

    mean: float
    std: float


def inception_score(logits: Matrix, splits: int, seed: int) -> InceptionScore:
    """`exp(E_x KL(p(y|x) | p(y)))` (Salimans et al. 2016), over random splits of the images.

    In float64, as `exp(H(E p) - E H(p))`, which is the same and has no `log 0` where a class has no
    probability. The shuffle is torch-fidelity's, so the same seed gives the same splits there. The
    score grows with the images of a split, so only figures of equal counts compare.

    Args:
        logits: (N, K).
        splits: at most N.
        seed: of the shuffle.

    Raises:
        ValueError: more splits than images, for which torch-fidelity gives NaN; or a row that is
            not finite.
    """
    count = len(logits)
    if not 1 <= splits <= count:
        raise ValueError(f"{count} images cannot be cut into {splits} splits")
    values = torch.from_numpy(finite_features(logits, "logits", least=1))
    order = torch.from_numpy(np.random.RandomState(seed).permutation(count))
    scores = []
    for split in range(splits):
        rows = order[split * count // splits : (split + 1) * count // splits]
        probabilities = values[rows].softmax(dim=1)
        entropy = torch.special.entr(probabilities).sum(dim=1).mean()
        entropy_of_mean = torch.special.entr(probabilities.mean(dim=0)).sum()
        scores.append(float((entropy_of_mean - entropy).exp()))
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))
