"""The only writer to MLflow: a local journal first, a publisher behind it, provenance."""
