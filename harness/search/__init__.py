"""Looking for good values of configuration fields with Optuna."""
