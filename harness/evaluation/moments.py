"""Mean and covariance of features that come batch by batch, on one process or on several.

Counts, means and scatter matrices of two parts give those of the whole (Chan, Golub and LeVeque
1983). Each batch is centred by its own mean before anything is squared, so features far from zero
lose no digits.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.feature_matrix import Matrix, check_widths, finite_features
from harness.machine.files import atomic_path


class FeatureMoments:
    """What a Frechet distance needs of any number of features, in 8 D^2 bytes."""

    def __init__(self, dimensions: int) -> None:
        self.count = 0
        """Features seen, exactly."""
        self.mean = np.zeros(dimensions)
        """(D,) float64."""
        self.scatter = np.zeros((dimensions, dimensions))
        """(D, D) float64: the sum of `(x - mean) (x - mean)^T`."""

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(D, D), unbiased.

        Raises:
            ValueError: fewer than two features.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 features, not {self.count}")
        return self.scatter / (self.count - 1)

    def update(self, batch: Matrix) -> None:
        """Take in (B, D) features, B of any size.

        Raises:
            ValueError: another width, or a row that is not finite; nothing is taken in then.
        """
        values = finite_features(batch, "batch", least=0)
        check_widths(len(self.mean), values.shape[1])
        if len(values):
            mean = values.mean(axis=0)
            centred = values - mean
            self._add(len(values), mean, centred.T @ centred)

    def merge(self, other: FeatureMoments) -> None:
        """Take in what another one saw, which is left as it is.

        Raises:
            ValueError: another width.
        """
        check_widths(len(self.mean), len(other.mean))
        if other.count:
            self._add(other.count, other.mean, other.scatter)

    def arrays(self) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
        """All of it as plain arrays: `count` (), `mean` (D,) and `scatter` (D, D)."""
        return {"count": np.array(self.count), "mean": self.mean, "scatter": self.scatter}

    def save(self, path: Path) -> None:
        """Write the arrays as `.npz`, atomically."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **self.arrays())  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> FeatureMoments:
        """Read what `save` wrote, every bit the same.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or of something else.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                count, mean, scatter = stored["count"], stored["mean"], stored["scatter"]
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} does not hold moments of features: {error}") from error
        fits = count.shape == () and mean.ndim == 1 and scatter.shape == (len(mean), len(mean))
        finite = fits and np.isfinite(mean).all() and np.isfinite(scatter).all()
        if not finite or count.dtype.kind != "i" or count < 0:
            shapes = f"count {count}, mean {mean.shape}, scatter {scatter.shape}"
            raise ValueError(f"{path} does not hold moments of features: {shapes}")
        moments = cls(len(mean))
        moments.count, moments.mean, moments.scatter = int(count), mean, scatter
        return moments

    def _add(self, count: int, mean: NDArray[np.float64], scatter: NDArray[np.float64]) -> None:
        total = self.count + count
        shift = mean - self.mean
        self.scatter += scatter
        self.scatter += np.outer(shift, shift * (self.count * count / total))
        self.mean = self.mean + shift * (count / total)
        self.count = total
