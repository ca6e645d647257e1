"""CPU threads: how many cores a process may use, and how its children are told their share."""

from __future__ import annotations

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""What the numeric libraries read as they are loaded; the first one also speaks for a user."""


def usable_cores() -> int:
    """Logical cores that this process may use: affinity and container quota respected."""
    from joblib import cpu_count

    return int(cpu_count())
