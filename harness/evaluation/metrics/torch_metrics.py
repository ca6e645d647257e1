"""The metrics as `torchmetrics.Metric` classes, to be used in any Lightning loop.

They take features that an extractor gives once for all of them, and reference features from
elsewhere::

    kid = KernelDistanceMetric(real_features)
    extracted = extractor(images)  # of harness.evaluation.extractors
    kid.update(extracted.features, sample_ids)
    self.log("kid", kid)

All but the Frechet distance keep the features with the unique numbers of their samples. On several
processes they are gathered, brought into the order of these numbers, and a sample that a
distributed sampler repeated to fill a batch counts once: so the value is that of one process, to
the last bit. The Frechet distance keeps moments alone, where a repeated sample counts twice.
Values are computed in float64 on the CPU by the functions that the harness itself uses.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors
from typing_extensions import override

from harness.evaluation.metrics.frechet import FeatureMoments, Gaussian, gaussian_distance
from harness.evaluation.metrics.inception_score import inception_score
from harness.evaluation.metrics.kernel_distance import kernel_distance
from harness.evaluation.metrics.neighbours import neighbour_scores

Features = NDArray[np.float32]


class FrechetDistanceMetric(Metric):
    """The squared Frechet distance to a fixed Gaussian of D dimensions, such as
    `fitted_gaussian(real_features)`; FID on Inception features."""

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    moments: Tensor

    def __init__(self, reference: Gaussian) -> None:
        super().__init__()
        self.reference = reference
        empty = _packed(FeatureMoments(len(reference.mean)))
        self.add_state("moments", empty, dist_reduce_fx=_merged)

    @override
    def update(self, features: Tensor) -> None:
        """Take in (B, D) features."""
        moments = _unpacked(self.moments)
        moments.update(features.detach().cpu().numpy())
        self.moments = _packed(moments).to(self.moments.device)

    @override
    def compute(self) -> Tensor:
        """A float64 scalar.

        Raises:
            ValueError: fewer than two features in all.
        """
        value = gaussian_distance(_unpacked(self.moments).gaussian, self.reference)
        return torch.tensor(value, dtype=torch.float64, device=self.device)


def _packed(moments: FeatureMoments) -> Tensor:
    """(1 + D + D^2,) float64: count, mean and scatter, so that they are merged together."""
    parts = (np.array([float(moments.count)]), moments.mean, moments.scatter.ravel())
    return torch.from_numpy(np.concatenate(parts))


def _unpacked(packed: Tensor) -> FeatureMoments:
    values = packed.detach().cpu().numpy().copy()
    size = round(((4 * len(values) - 3) ** 0.5 - 1) / 2)
    mean, scatter = values[1 : 1 + size], values[1 + size :].reshape(size, size)
    return FeatureMoments.of(int(values[0]), mean, scatter)


def _merged(stacked: Tensor) -> Tensor:
    """(W, 1 + D + D^2) of several processes or batches to one."""
    first, *others = (_unpacked(row) for row in stacked)
    for other in others:
        first.merge(other)
    return _packed(first).to(stacked.device)


class _KeptRows(Metric):
    """Keeps rows of numbers, each with the unique number of its sample."""

    is_differentiable = False
    full_state_update = False

    rows: list[Tensor] | Tensor
    ids: list[Tensor] | Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("ids", [], dist_reduce_fx="cat")

    @override
    def update(self, rows: Tensor, ids: Tensor) -> None:
        """Take in a batch.

        Args:
            rows: (B, D) features, or (B, K) logits.
            ids: (B,) integers, a different one for each sample, on all processes together.
        """
        if rows.ndim != 2 or rows.shape[1] != self.width or ids.shape != rows.shape[:1]:
            shapes = f"{tuple(rows.shape)} and {tuple(ids.shape)}"
            raise ValueError(f"expected (B, {self.width}) and (B,) ids, not {shapes}")
        assert isinstance(self.rows, list)
        assert isinstance(self.ids, list)
        self.rows.append(rows.detach().float())
        self.ids.append(ids.detach().long())

    @override
    def compute(self) -> Any:
        """The value, or a dictionary of values, as float64 scalars.

        Raises:
            ValueError: too few samples.
        """
        self._begin()
        _, order = np.unique(dim_zero_cat(self.ids).cpu().numpy(), return_index=True)
        found = self._value(dim_zero_cat(self.rows).cpu().numpy()[order])
        if isinstance(found, dict):
            return {key: self._scalar(value) for key, value in found.items()}
        return self._scalar(found)

    @abstractmethod
    def _value(self, rows: Features) -> float | dict[str, float]:
        """Of all samples, in the order of their numbers."""

    def _scalar(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64, device=self.device)

    def _begin(self) -> None:
        """Hold at least an empty batch: a process without any would not know its shape, and the
        others would wait for it in vain."""
        if isinstance(self.rows, list) and not self.rows:
            assert isinstance(self.ids, list)
            self.rows.append(torch.empty((0, self.width), device=self.device))
            self.ids.append(torch.empty(0, dtype=torch.int64, device=self.device))

    @override
    def _sync_dist(
        self,
        dist_sync_fn: Callable[..., Any] = gather_all_tensors,
        process_group: Any | None = None,
    ) -> None:
        self._begin()
        super()._sync_dist(dist_sync_fn, process_group)


class KernelDistanceMetric(_KeptRows):
    """The kernel distance to the features (M, D) of real images, averaged over random subsets; KID
    on Inception features. It takes features."""

    higher_is_better = False

    def __init__(self, reference: Features, subsets: int = 100, subset_size: int = 1000) -> None:
        super().__init__(reference.shape[1])
        self.reference, self.subsets, self.subset_size = reference, subsets, subset_size

    @override
    def _value(self, rows: Features) -> float:
        return kernel_distance(
            rows, self.reference, subsets=self.subsets, subset_size=self.subset_size
        ).mean


class InceptionScoreMetric(_KeptRows):
    """The Inception score, averaged over the splits that a shuffle of that seed gives. It takes
    logits of a classifier."""

    higher_is_better = True

    def __init__(self, classes: int, splits: int = 10, seed: int = 0) -> None:
        super().__init__(classes)
        self.splits, self.seed = splits, seed

    @override
    def _value(self, rows: Features) -> float:
        return inception_score(rows, self.splits, self.seed).mean


class NeighbourScoresMetric(_KeptRows):
    """Precision and recall by k = `neighbours`, density and coverage by `density_neighbours`,
    beside the features (M, D) of real images, in a dictionary. It takes features."""

    higher_is_better = True

    def __init__(
        self, reference: Features, neighbours: int = 3, density_neighbours: int = 5
    ) -> None:
        super().__init__(reference.shape[1])
        self.reference = reference
        self.neighbours, self.density_neighbours = neighbours, density_neighbours

    @override
    def _value(self, rows: Features) -> dict[str, float]:
        near, dense = self.neighbours, self.density_neighbours
        return neighbour_scores(
            rows, self.reference, neighbours=near, density_neighbours=dense
        )._asdict()
