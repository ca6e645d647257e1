"""From the runs in MLflow to tables and figures. Knows the harness by its names alone."""
