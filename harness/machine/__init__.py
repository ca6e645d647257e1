"""Files, arrays on disk, cores, GPUs, versions."""
