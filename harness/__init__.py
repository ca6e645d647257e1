"""From an experiment file to figures in MLflow, each stage a package of its own."""
