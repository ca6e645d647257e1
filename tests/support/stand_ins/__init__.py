"""Small networks, images, extractors and weights that stand in for real ones."""
