"""Features to figures: Frechet and kernel distances, scores, neighbours, their uncertainty."""
