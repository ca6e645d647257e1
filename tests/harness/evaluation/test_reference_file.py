from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.features import Extraction, extract_features
from harness.evaluation.image_inputs import ImageInput
from harness.evaluation.metrics.frechet import fitted_gaussian, gaussian_distance
from harness.evaluation.quality import measure_quality
from harness.evaluation.reference import ReferenceStatistics
from harness.evaluation.reference_file import (
    build_reference,
    is_reference,
    read_reference,
    reference_extractor,
)
from harness.vocabulary.metrics import Measurement
from models.errors import UserError
from tests.support.figures import frechet_distance_of_features
from tests.support.stand_ins.pixel_extractor import PixelExtractor


def build(images: np.ndarray, path: Path, extractor: FeatureExtractor, **options: Any):
    shown = ImageInput(images, "digits")
    return build_reference(shown, Extraction(extractor, 7, "cpu"), path, **options)


def read(
    path: Path, extractor: FeatureExtractor, single_images: bool = True
) -> tuple[ReferenceStatistics, dict[str, Any]]:
    return read_reference(path, Extraction(extractor, 7, "cpu"), single_images=single_images)


@pytest.mark.parametrize("layout", ["features", "adm"])
def test_statistics_are_of_all_images_and_single_images_are_some(
    layout: str, digits: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "r.npz"
    build(digits[:300], path, PixelExtractor(), layout=layout, single_images=40)
    pixels = digits[:300].reshape(300, 64).astype(np.float64) / 16
    with np.load(path) as stored:
        for mean, covariance, part in (
            ("mu", "sigma", pixels[:, 18:22]),
            ("mu_s", "sigma_s", pixels[:, 34:40]),
        ):
            np.testing.assert_allclose(stored[mean], part.mean(axis=0), rtol=1e-12)
            np.testing.assert_allclose(stored[covariance], np.cov(part.T), atol=1e-10)
    found, _ = read(path, PixelExtractor())
    assert found.features is not None
    assert found.features.shape == (40, 4)
    assert found.images == 300
    rows = {tuple(row) for row in pixels[:, 18:22].astype(np.float32)}
    assert all(tuple(row) in rows for row in found.features)
    # Neither the first nor the last forty.
    assert not np.array_equal(found.features, pixels[:40, 18:22].astype(np.float32))


def test_both_layouts_choose_the_same_images(digits: np.ndarray, tmp_path: Path) -> None:
    found = []
    for layout in ("features", "adm"):
        path = tmp_path / f"{layout}.npz"
        build(digits[:99], path, PixelExtractor(), layout=layout, single_images=20)
        found.append(read(path, PixelExtractor())[0].features)
    assert np.array_equal(*found)


def test_an_adm_file_has_what_adms_evaluator_reads(digits: np.ndarray, tmp_path: Path) -> None:
    build(digits[:50], tmp_path / "r.npz", PixelExtractor(), layout="adm")
    with np.load(tmp_path / "r.npz") as stored:
        assert stored["arr_0"].dtype == np.uint8
        assert np.array_equal(stored["arr_0"], np.repeat(digits[:50], 3, axis=3))
        assert {"mu", "sigma", "mu_s", "sigma_s"} <= set(stored.files)


def test_a_distance_from_the_file_is_that_from_the_features(
    digits: np.ndarray, tmp_path: Path
) -> None:
    extractor = PixelExtractor()
    samples = extract_features(digits[900:1000], Extraction(extractor, 50, "cpu"))
    for count in (6, 900):
        path = tmp_path / f"{count}.npz"
        build(digits[:count], path, extractor)
        real = extract_features(digits[:count], Extraction(extractor, 50, "cpu"))
        expected = frechet_distance_of_features(samples.features, real.features)
        statistics, _ = read(path, extractor)
        found = measure_quality(samples, statistics, {}, inception_splits=1)
        assert found.values()["fd"] == pytest.approx(expected, rel=1e-6)
        assert samples.spatial is not None
        assert real.spatial is not None
        expected = gaussian_distance(samples.spatial.gaussian, real.spatial.gaussian)
        assert found.values()["sfd"] == pytest.approx(expected, rel=1e-6)


def adm_file(path: Path, images: np.ndarray | None, size: int = 4, spatial: int = 6) -> Path:
    """As from elsewhere: without provenance, statistics of other images than those in it."""
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for mean, covariance, width in (("mu", "sigma", size), ("mu_s", "sigma_s", spatial)):
        values = random.normal(3, 1, (500, width))
        arrays |= {mean: values.mean(axis=0), covariance: np.cov(values.T)}
    if images is not None:
        arrays["arr_0"] = np.repeat(images, 3, axis=3)
    np.savez(path, **arrays)
    return path


def test_an_adm_files_statistics_are_used_and_its_images_serve_neighbours_alone(
    digits: np.ndarray, tmp_path: Path
) -> None:
    extractor = PixelExtractor("inception")
    path = adm_file(tmp_path / "adm.npz", digits[:30])
    statistics, provenance = read(path, extractor)
    samples = extract_features(digits[100:200], Extraction(extractor, 50, "cpu"))
    with np.load(path) as stored:
        mean, covariance = stored["mu"], stored["sigma"]
    ours = fitted_gaussian(samples.features)
    shift = ours.mean.numpy() - mean
    mine = (ours.factor.T @ ours.factor).numpy()
    values = np.linalg.eigvals(mine @ covariance)
    expected = shift @ shift + np.trace(mine + covariance) - 2 * np.sqrt(values).sum().real
    found = measure_quality(samples, statistics, {}, inception_splits=1)
    assert found.values()["fd"] == pytest.approx(expected, rel=1e-9)
    assert statistics.features is not None
    assert statistics.features.shape == (30, 4)
    assert statistics.images is None
    assert provenance["assumed"] is True
    assert "recall" in found.figures


def test_images_of_an_adm_file_are_left_alone_where_they_are_not_needed(
    digits: np.ndarray, tmp_path: Path
) -> None:
    extractor = PixelExtractor("inception")
    read(adm_file(tmp_path / "adm.npz", digits[:30]), extractor, single_images=False)
    assert not extractor.seen


def test_statistics_alone_leave_out_what_needs_images(digits: np.ndarray, tmp_path: Path) -> None:
    """As in the files of pytorch-fid."""
    extractor = PixelExtractor("inception")
    with np.load(adm_file(tmp_path / "adm.npz", None)) as stored:
        np.savez(tmp_path / "fid.npz", mu=stored["mu"], sigma=stored["sigma"])
    statistics, _ = read(tmp_path / "fid.npz", extractor)
    samples = extract_features(digits[:20], Extraction(extractor, 50, "cpu"))
    found = measure_quality(samples, statistics, {}, inception_splits=1)
    assert "fd" in found.figures
    assert set(found.left_out) == {Measurement.SPATIAL, Measurement.KERNEL, Measurement.NEIGHBOURS}


def test_provenance_says_what_the_reference_depends_on(digits: np.ndarray, tmp_path: Path) -> None:
    written = build(digits[:30], tmp_path / "r.npz", PixelExtractor(), single_images=10)
    _, provenance = read(tmp_path / "r.npz", PixelExtractor())
    assert provenance == written
    assert provenance["images"] == 30
    assert provenance["single_images"] == 10
    assert provenance["resolution"] == "8x8"
    assert provenance["source"] == "digits"
    assert "torch-fidelity" in provenance["versions"]
    other = build(digits[1:31], tmp_path / "other.npz", PixelExtractor())
    assert other["fingerprint"] != provenance["fingerprint"]


def test_a_reference_of_another_extractor_is_refused_and_both_are_named(
    digits: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "r.npz"
    build(digits[:30], path, PixelExtractor())
    with pytest.raises(UserError, match="r.npz is of extractor 'pixels'.*with extractor 'other'"):
        read(path, PixelExtractor("other"))
    weights = PixelExtractor()
    weights.weights_sha256 = "00" * 32
    with pytest.raises(UserError, match="is of weights 'cdcd.*with weights '0000"):
        read(path, weights)
    resized = PixelExtractor()
    resized.resize = "bicubic"
    with pytest.raises(UserError, match="is of resize 'none'.*with resize 'bicubic'"):
        read(path, resized)


def test_a_file_without_provenance_is_inceptions(digits: np.ndarray, tmp_path: Path) -> None:
    path = adm_file(tmp_path / "adm.npz", digits[:30])
    with pytest.raises(UserError, match="without provenance are, of extractor 'inception'.*pixels"):
        read(path, PixelExtractor())


def test_statistics_of_another_width_are_refused(tmp_path: Path) -> None:
    path = adm_file(tmp_path / "adm.npz", None, size=5)
    with pytest.raises(UserError, match=r"adm\.npz .*for 4 dimensions"):
        read(path, PixelExtractor("inception"))


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_reference_is_named(kept: float, digits: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    build(digits[:300], path, PixelExtractor())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert is_reference(path)
    with pytest.raises(UserError, match=r"r\.npz (cannot be read|is an empty file)"):
        read(path, PixelExtractor())


def test_other_files_are_no_references(digits: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", arr_0=digits[:10])
    assert not is_reference(tmp_path / "images.npz")
    assert not is_reference(tmp_path)
    with pytest.raises(UserError, match="images.npz holds no statistics"):
        read(tmp_path / "images.npz", PixelExtractor("inception"))
    with pytest.raises(UserError, match="there is no reference .*build-reference"):
        read(tmp_path / "nowhere.npz", PixelExtractor())
    np.savez(tmp_path / "later.npz", provenance=np.array(json.dumps({"format": 9})))
    with pytest.raises(UserError, match="later.npz .*format: Input should be 1"):
        read(tmp_path / "later.npz", PixelExtractor())


def with_arrays(path: Path, **changed: np.ndarray) -> Path:
    """The same file with other arrays in it."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(path, **{**arrays, **changed})
    return path


def test_a_provenance_without_extractor_is_named(digits: np.ndarray, tmp_path: Path) -> None:
    written = build(digits[:30], tmp_path / "r.npz", PixelExtractor())
    del written["extractor"]
    path = with_arrays(tmp_path / "r.npz", provenance=np.array(json.dumps(written)))
    with pytest.raises(UserError, match=r"r\.npz .*extractor: Field required"):
        read(path, PixelExtractor())
    with pytest.raises(UserError, match=r"r\.npz .*extractor: Field required"):
        reference_extractor(path)


@pytest.mark.parametrize("count", [6, 30])
def test_features_that_are_not_finite_are_named(
    count: int, digits: np.ndarray, tmp_path: Path
) -> None:
    """Six are so few that the covariance comes from them, too."""
    build(digits[:count], tmp_path / "r.npz", PixelExtractor())
    features = np.ones((count, 4), dtype=np.float32)
    features[3, 1] = np.nan
    path = with_arrays(tmp_path / "r.npz", features=features)
    with pytest.raises(UserError, match=r"r\.npz .*features: row 3 is not finite"):
        read(path, PixelExtractor())


BAD_ARRAYS: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "mu NaN": ({"mu": np.array([1, np.nan, 1, 1])}, "mean: row 1 is not finite"),
    "mu text": ({"mu": np.array(["a", "b", "c", "d"])}, "mu is <U1"),
    "mu complex": ({"mu": np.ones(4, dtype=complex)}, "mu is complex128"),
    "mu short": ({"mu": np.ones(3)}, r"mu is of shape \(3,\)"),
    "mu another": ({"mu": np.full(4, 1e3)}, "mu is not the mean of its features"),
    "sigma inf": ({"sigma": np.diag([1, 1, np.inf, 1])}, "covariance: row 2 is not finite"),
    "sigma not square": ({"sigma": np.ones((4, 3))}, r"sigma is of shape \(4, 3\)"),
    "sigma asymmetric": ({"sigma": np.eye(4) + np.eye(4, k=1)}, "is not symmetric"),
    "sigma negative": ({"sigma": np.diag([1.0, 1, 1, -1])}, "has the negative eigenvalue -1"),
    "sigma indefinite": ({"sigma": np.ones((4, 4)) - np.eye(4)}, "has the negative eigenvalue"),
    "sigma_s asymmetric": ({"sigma_s": np.eye(6) + np.eye(6, k=1)}, "is not symmetric"),
    "mu_s NaN": ({"mu_s": np.full(6, np.nan)}, "mean: row 0 is not finite"),
    "features text": ({"features": np.array([["a"] * 4] * 3)}, "features is <U1"),
    "features narrow": ({"features": np.ones((3, 3), np.float32)}, r"expected \(images, 4\)"),
    "features many": ({"features": np.ones((99, 4), np.float32)}, "99 features of"),
}


@pytest.mark.parametrize("count", [6, 30])
@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_statistics_that_cannot_be_are_refused_even_where_they_are_not_used(
    case: str, count: int, digits: np.ndarray, tmp_path: Path
) -> None:
    """Of six images the covariance comes from the features beside it."""
    build(digits[:count], tmp_path / "r.npz", PixelExtractor())
    arrays, said = BAD_ARRAYS[case]
    path = with_arrays(tmp_path / "r.npz", **arrays)
    with pytest.raises(UserError, match=rf"r\.npz holds no statistics to use: .*{said}") as refused:
        read(path, PixelExtractor())
    assert "\n" not in str(refused.value)


FIELDS = ("format", "extractor", "weights_sha256", "resize", "images", "resolution", "fingerprint")


@pytest.mark.parametrize("value", [None, [], {}, -1, 0.5], ids=repr)
@pytest.mark.parametrize("field", [*FIELDS, "source", "versions", "classes"])
def test_a_provenance_of_other_types_is_refused(
    field: str, value: object, digits: np.ndarray, tmp_path: Path
) -> None:
    written = build(digits[:6], tmp_path / "r.npz", PixelExtractor())
    if field == "versions" and value == {}:
        return
    changed = np.array(json.dumps({**written, field: value}))
    path = with_arrays(tmp_path / "r.npz", provenance=changed)
    for use in (lambda: read(path, PixelExtractor()), lambda: reference_extractor(path)):
        with pytest.raises(UserError, match=rf"r\.npz says .*\({field}[:.]") as refused:
            use()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["null", "[]", "1", "NaN", '"text"', "{", "", "[" * 10_000, '{"a":' * 10_000, "[1," * 99_999],
    ids=lambda text: text[:9],
)
def test_a_provenance_that_is_none_is_refused(
    text: str, digits: np.ndarray, tmp_path: Path
) -> None:
    build(digits[:6], tmp_path / "r.npz", PixelExtractor())
    path = with_arrays(tmp_path / "r.npz", provenance=np.array(text))
    with pytest.raises(UserError, match=r"r\.npz says of where it comes from") as refused:
        read(path, PixelExtractor())
    assert len(str(refused.value)) < 500 + len(str(tmp_path))


def test_a_file_that_is_no_reference_is_called_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "pointer.npz").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="a Git LFS pointer"):
        read(tmp_path / "pointer.npz", PixelExtractor("inception"))
    np.savez(tmp_path / "x_kid.npz", feats=np.zeros((3, 4)))
    with pytest.raises(UserError, match="x_kid.npz holds .*feats"):
        read(tmp_path / "x_kid.npz", PixelExtractor("inception"))


def test_the_resolution_of_an_adm_file_is_that_of_its_images(
    digits: np.ndarray, tmp_path: Path
) -> None:
    path = adm_file(tmp_path / "adm.npz", digits[:30, :, :6])
    with np.load(path) as stored:
        np.savez_compressed(tmp_path / "small.npz", **stored)
    for file in (path, tmp_path / "small.npz"):
        _, provenance = read(file, PixelExtractor("inception"), single_images=False)
        assert provenance["resolution"] == "8x6"


def test_adms_layout_is_for_inception(digits: np.ndarray, projection, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="for Inception features, not for random_projection"):
        build(digits[:30], tmp_path / "r.npz", projection, layout="adm")
    assert not (tmp_path / "r.npz").exists()


def test_too_few_images_are_refused(digits: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 images, but at least 2"):
        build(digits[:1], tmp_path / "r.npz", PixelExtractor())
