"""Stored runs to tables in CSV, LaTeX, Markdown and on the console."""
