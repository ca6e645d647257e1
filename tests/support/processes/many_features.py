"""A program of its own: measures synthetic features, and prints what memory that took as JSON.

Usage: many_features.py SAMPLES REFERENCE METRIC...
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import torch

from harness.evaluation.features import Features
from harness.evaluation.metrics.frechet import Gaussian
from harness.evaluation.quality import measure_quality
from harness.evaluation.reference import ReferenceStatistics
from harness.vocabulary.metrics import Measurement

DIMENSIONS, CLASSES = 2048, 1008


def resident_peak() -> int:
    """Bytes of resident memory at the process's peak; `getrusage` would tell the parent's too."""
    found = re.search(r"^VmHWM:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


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
    before = resident_peak()
    quality = measure_quality(
        features,
        reference,
        {},
        inception_splits=10,
        measurements=[Measurement(name) for name in sys.argv[3:]],
    )
    assert not quality.left_out
    print(json.dumps({"before": before, "peak": resident_peak()}))


if __name__ == "__main__":
    main()
