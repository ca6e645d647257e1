"""Words typed to calls."""
