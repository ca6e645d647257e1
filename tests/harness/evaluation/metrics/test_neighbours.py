"""Against double loops over all pairs, and torch-fidelity's precision and recall."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.evaluation.metrics import neighbours as pairwise
from harness.evaluation.metrics.neighbours import Block, Points, neighbour_scores, squared_radii
from harness.processes.progress import Progress


def squared(x: np.ndarray, y: np.ndarray) -> float:
    return float(((x - y) ** 2).sum())


def naive(generated: np.ndarray, real: np.ndarray, k: int, k_density: int) -> tuple[float, ...]:
    def radii(points: np.ndarray, order: int) -> list[float]:
        found = []
        for i, x in enumerate(points):
            others = [squared(x, y) for j, y in enumerate(points) if j != i]
            found.append(sorted(others)[order - 1])
        return found

    def balls(points: np.ndarray, centres: np.ndarray, order: int) -> np.ndarray:
        reach = radii(centres, order)
        return np.array(
            [[squared(x, c) <= r for c, r in zip(centres, reach, strict=True)] for x in points]
        )

    dense = balls(generated, real, k_density)
    return (
        balls(generated, real, k).any(axis=1).mean(),
        balls(real, generated, k).any(axis=1).mean(),
        dense.sum() / (k_density * len(generated)),
        dense.any(axis=0).mean(),
    )


@pytest.fixture
def pixels(digits: np.ndarray) -> np.ndarray:
    """Real images whose squared distances are integers: exact, and with ties."""
    return digits.reshape(-1, 64).astype(np.float64)


@pytest.mark.parametrize(("k", "k_density"), [(3, 5), (1, 1), (4, 2)])
def test_equals_the_double_loop_on_real_digits(pixels, k: int, k_density: int) -> None:
    generated = (0.8 * pixels[100:150] + 20).round()
    real = pixels[:60]
    scores = neighbour_scores(generated, real, neighbours=k, density_neighbours=k_density)
    assert scores == pytest.approx(naive(generated, real, k, k_density), rel=1e-12)
    assert 0 < scores.precision < 1


def test_equals_torch_fidelity_on_real_jpegs(cifar) -> None:
    from torch_fidelity.metric_prc import prc_features_to_metric

    generated, real = 0.7 * cifar.features[::2] + 0.15, cifar.features[1::2]
    theirs = prc_features_to_metric(
        torch.from_numpy(generated),
        torch.from_numpy(real),
        prc_neighborhood=3,
        prc_batch_size=64,
        save_cpu_ram=True,
        verbose=False,
    )
    scores = neighbour_scores(generated, real)
    assert scores.precision == pytest.approx(theirs["precision"], rel=1e-6)
    assert scores.recall == pytest.approx(theirs["recall"], rel=1e-6)
    assert scores.precision != scores.recall


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_copies_of_real_images_lie_on_the_spheres_they_span(scale: float) -> None:
    """Each copy is exactly as far from an image as that image's neighbour: every one is a tie."""
    random = np.random.default_rng(0)
    real = scale * (random.gamma(1, size=(60, 32)) + 5)
    copies = real[random.permutation(60)[:45]]
    scores = neighbour_scores(copies, real, neighbours=1, density_neighbours=2)
    assert scores == pytest.approx(naive(copies, real, 1, 2), rel=1e-12)


def test_a_set_holds_itself() -> None:
    points = np.random.default_rng(0).normal(size=(50, 16))
    scores = neighbour_scores(points, points[::-1], neighbours=3, density_neighbours=5)
    assert (scores.precision, scores.recall, scores.coverage) == (1, 1, 1)
    # A ball holds its centre and five more, all of them: six for a density of five.
    assert scores.density == pytest.approx(6 / 5, rel=1e-12)


def test_images_that_are_all_the_same_are_within_balls_of_no_size() -> None:
    points = np.full((10, 4), 0.1)
    assert neighbour_scores(points, points) == (1, 1, 10 / 5, 1)
    assert neighbour_scores(points + 1e-9, points) == (0, 0, 0, 0)


def test_modes_that_are_missing_cost_recall_and_coverage() -> None:
    random = np.random.default_rng(0)
    real = random.normal(size=(80, 2)) * 0.1 + np.repeat(np.eye(2) * 10, 40, axis=0)
    one_mode = random.normal(size=(60, 2)) * 0.02 + [10, 0]
    scores = neighbour_scores(one_mode, real)
    assert scores.precision == 1
    assert scores.recall < 0.3
    assert scores.coverage < 0.3
    assert scores.density > 1


def test_blocks_change_nothing_and_bound_the_memory(pixels, monkeypatch) -> None:
    generated, real = pixels[:70] + 1, pixels[60:150]
    at_once = neighbour_scores(generated, real)
    sizes = []
    build = Block.__init__

    def watched(self: Block, points: Points, others: Points, rows, columns, centred) -> None:
        build(self, points, others, rows, columns, centred)
        sizes.append(self.squared.numel())

    monkeypatch.setattr(Block, "__init__", watched)
    monkeypatch.setattr(pairwise, "ENTRIES_AT_ONCE", 400)
    reported: list[Progress] = []
    assert neighbour_scores(generated, real, on_progress=reported.append) == at_once
    assert max(sizes) <= 400
    assert len(sizes) > 40
    compared = [p for p in reported if p.stage == "precision and recall"]
    assert compared == reported[-len(compared) :]
    assert [p.done for p in compared] == [20, 40, 60, 70]
    assert [p.done for p in reported if p.stage == "neighbours"] == [
        *(20, 40, 60, 80, 90),
        *(20, 40, 60, 70),
    ]


def test_float32_features_are_compared_in_float64() -> None:
    """The distances of one set around 1000 differ by less than float32 tells apart."""
    random = np.random.default_rng(0)
    generated, real = (1000 + random.normal(size=(2, 90, 16))).astype(np.float32)
    expected = naive(generated.astype(np.float64), real.astype(np.float64), 3, 5)
    assert neighbour_scores(generated, real) == pytest.approx(expected, rel=1e-12)


def test_distances_and_neighbours_are_those_of_the_naive_formula(monkeypatch) -> None:
    monkeypatch.setattr(pairwise, "ENTRIES_AT_ONCE", 400)
    features = np.random.default_rng(0).gamma(1, size=(75, 12)).astype(np.float32)
    points = Points(features, "features", origin=None, least=2)
    exact = features.astype(np.float64)
    squared_distances = ((exact[:, None] - exact[None]) ** 2).sum(axis=2)
    for block in points.blocks(points):
        expected = squared_distances[block.rows, block.columns]
        assert np.abs(block.squared.numpy() - expected).max() < 1e-10 * squared_distances.max()
    ordered = np.sort(squared_distances, axis=1)
    for order, radii in zip((1, 4), squared_radii(points, (1, 4)), strict=True):
        np.testing.assert_allclose(radii.numpy(), ordered[:, order], rtol=1e-12)


def test_a_common_offset_changes_nothing() -> None:
    """It would leave no digit of a distance if the products were taken as they are."""
    random = np.random.default_rng(0)
    generated, real = random.normal(size=(2, 60, 8)).round(3)
    expected = naive(generated, real, 3, 5)
    assert neighbour_scores(generated + 2.0**24, real + 2.0**24) == pytest.approx(expected)


def test_features_that_cannot_be_compared_are_refused() -> None:
    points = np.random.default_rng(0).normal(size=(10, 4))
    with pytest.raises(ValueError, match=r"real features: \(N >= 6, D\)"):
        neighbour_scores(points, points[:5])
    with pytest.raises(ValueError, match=r"generated features: \(N >= 9, D\)"):
        neighbour_scores(points[:8], points, neighbours=8)
    with pytest.raises(ValueError, match="3 and 4 dimensions"):
        neighbour_scores(points[:, :3], points)
    with pytest.raises(ValueError, match="no neighbour number 0"):
        neighbour_scores(points, points, neighbours=0)
    broken = points.copy()
    broken[9, 0] = np.nan
    with pytest.raises(ValueError, match="generated features: row 9 is not finite"):
        neighbour_scores(broken, points)
