"""Measurements of the harness itself; nothing imports them."""
