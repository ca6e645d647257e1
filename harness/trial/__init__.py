"""One trial from start to measured."""
