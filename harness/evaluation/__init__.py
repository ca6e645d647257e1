"""Measuring images and networks: takes images, networks or timings, and knows no run."""
