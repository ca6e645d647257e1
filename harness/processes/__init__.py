"""Several processes on one task: signals, pool, workers, ranks, locks, progress."""
