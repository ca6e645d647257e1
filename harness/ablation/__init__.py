"""Many trials and their report."""
