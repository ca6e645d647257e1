from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.evaluation.features import Extraction, extract_features
from harness.evaluation.quality import measure_quality
from harness.evaluation.reference_file import read_reference
from harness.evaluation.standalone.outputs import evaluation_warnings
from harness.vocabulary.metrics import Measurement
from tests.support.stand_ins.pixel_extractor import PixelExtractor


@pytest.fixture
def digits() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1)).astype(np.uint8)


def warnings_of(path: Path, samples: np.ndarray) -> str:
    """What is said of samples beside a reference from elsewhere."""
    extractor = PixelExtractor("inception")
    extraction = Extraction(extractor, 9, "cpu")
    statistics, provenance = read_reference(path, extraction, single_images=False)
    features = extract_features(samples, extraction)
    identity = {"samples": len(samples), "resolution": "8x8"}
    quality = measure_quality(
        features, statistics, identity, inception_splits=1, measurements=(Measurement.FRECHET,)
    )
    return "\n".join(evaluation_warnings(quality, provenance))


def test_what_is_assumed_of_statistics_alone_is_said(digits: np.ndarray, tmp_path: Path) -> None:
    """As pytorch-fid and clean-fid store them."""
    np.savez(tmp_path / "fid.npz", mu=np.zeros(4), sigma=np.eye(4))
    said = warnings_of(tmp_path / "fid.npz", digits)
    assert "extractor and resize of the reference are not recorded" in said
    assert "pytorch-fid or clean-fid" in said


def test_what_is_assumed_of_an_adm_file_is_said(digits: np.ndarray, tmp_path: Path) -> None:
    spatial = {"mu_s": np.zeros(6), "sigma_s": np.eye(6)}
    np.savez(tmp_path / "adm.npz", mu=np.zeros(4), sigma=np.eye(4), **spatial)
    said = warnings_of(tmp_path / "adm.npz", digits)
    assert "extractor and resize of the reference are not recorded" in said
    assert "pytorch-fid" not in said


def test_images_of_another_size_in_an_adm_file_are_warned_of(
    digits: np.ndarray, tmp_path: Path
) -> None:
    for side, warned in ((8, False), (64, True)):
        images = np.zeros((3, side, side, 3), dtype=np.uint8)
        np.savez(tmp_path / "adm.npz", mu=np.zeros(4), sigma=np.eye(4), arr_0=images)
        said = warnings_of(tmp_path / "adm.npz", digits)
        assert ("the samples are 8x8, but the reference is of images of 64x64" in said) == warned
