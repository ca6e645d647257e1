"""A private SLURM and sweeps on it."""
