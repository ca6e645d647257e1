"""Figures in one call, for tests to compare with."""

from __future__ import annotations

from harness.evaluation.metrics.frechet import Matrix, gaussian_distance, gaussian_of_features


def frechet_distance_of_features(features_a: Matrix, features_b: Matrix) -> float:
    """The distance between Gaussians fitted to (N, D) and (M, D) features."""
    return gaussian_distance(gaussian_of_features(features_a), gaussian_of_features(features_b))
