"""Stored runs to figures."""
