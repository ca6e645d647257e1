"""A program of its own: measures synthetic features, and prints what memory that took as JSON.

Usage: many_features.py SAMPLES REFERENCE METRIC...
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch

from harness.evaluation.cost import measure_peak_memory
from harness.evaluation.features import Features
from harness.evaluation.metrics.frechet import Gaussian
from harness.evaluation.quality import measure_quality
from harness.evaluation.reference import ReferenceStatistics
from harness.vocabulary.metrics import Measurement

DIMENSIONS, CLASSES = 2048, 1008


def main() -> None:
    samples, real = int(sys.argv[1]), int(sys.argv[2])
    random = np.random.default_rng(0)
    features = Features(
        random.standard_normal((samples, DIMENSIONS), dtype=np.float32),
        random.standard_normal((samples, CLASSES), dtype=np.float32),
    )
    reference = ReferenceStatistics(
        fingerprint="0" * 64,
        images=real,
        gaussian=Gaussian(
            torch.zeros(DIMENSIONS, dtype=torch.float64),
            torch.eye(DIMENSIONS, dtype=torch.float64),
        ),
        spatial=None,
        features=random.standard_normal((real, DIMENSIONS), dtype=np.float32),
    )
    with measure_peak_memory("cpu") as before:
        pass
    with measure_peak_memory("cpu") as peak:
        quality = measure_quality(
            features,
            reference,
            {},
            inception_splits=10,
            measurements=[Measurement(name) for name in sys.argv[3:]],
        )
    assert not quality.left_out
    print(json.dumps({"before": before.bytes, "peak": peak.bytes, "kind": peak.kind}))


if __name__ == "__main__":
    main()
