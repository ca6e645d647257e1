"""A package, so that processes which tests start find it before the one of torch-fidelity."""
