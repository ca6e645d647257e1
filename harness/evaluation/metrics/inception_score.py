"""The Inception score, from logits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from harness.evaluation.metrics.frechet import Matrix, check_features

_ROWS_AT_ONCE = 1024
"""Probabilities in memory: 8 MiB for 1,008 classes."""


class InceptionScore(NamedTuple):
    """Mean and population standard deviation over the splits."""

    mean: float
    std: float


def inception_score(logits: Matrix, splits: int, seed: int) -> InceptionScore:
    """`exp(E_x KL(p(y|x) | p(y)))` (Salimans et al. 2016), over random splits of N images (N, K).

    In float64, as `exp(H(E p) - E H(p))`, which is the same and has no `log 0` where a class has no
    probability. The shuffle is torch-fidelity's, so the same seed gives the same splits there. The
    score grows with the images of a split, so only figures of equal counts compare.

    Raises:
        ValueError: more splits than images, for which torch-fidelity gives NaN; or a row that is
            not finite.
    """
    count = len(logits)
    if not 1 <= splits <= count:
        raise ValueError(f"{count} images cannot be cut into {splits} splits")
    check_features(logits, "logits", least=1)
    order = np.random.RandomState(seed).permutation(count)
    scores = []
    for split in range(splits):
        rows = order[split * count // splits : (split + 1) * count // splits]
        mean = torch.zeros(logits.shape[1], dtype=torch.float64)
        entropy = torch.zeros((), dtype=torch.float64)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            values = logits[rows[start : start + _ROWS_AT_ONCE]].astype(np.float64)
            probabilities = torch.from_numpy(values).softmax(dim=1)
            mean += probabilities.sum(dim=0) / len(rows)
            entropy += torch.special.entr(probabilities).sum() / len(rows)
        scores.append(float((torch.special.entr(mean).sum() - entropy).exp()))
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))
