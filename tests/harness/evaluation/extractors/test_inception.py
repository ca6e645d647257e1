"""The whole Inception path, on torch-fidelity's network with random weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from harness.evaluation.extractors import inception, load_extractor
from harness.evaluation.extractors.inception import STANDARD_FILE, Extractor
from models.errors import UserError
from tests.support.stand_ins.random_weights import smooth_images


@pytest.fixture(scope="module")
def extractor(inception_weights: Path) -> Extractor:
    loaded = load_extractor("inception", inception_weights)
    assert isinstance(loaded, Extractor)
    return loaded


@pytest.fixture(scope="module")
def theirs(inception_weights: Path) -> FeatureExtractorInceptionV3:
    return FeatureExtractorInceptionV3(
        "x", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(inception_weights)
    )


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def test_features_and_logits_are_those_of_torch_fidelity(
    extractor: Extractor, theirs: FeatureExtractorInceptionV3
) -> None:
    images = smooth_images(2, 32, seed=0)
    with torch.inference_mode():
        features, logits = theirs(images.permute(0, 3, 1, 2).contiguous())
        ours = extractor(images)
    assert relative(ours.features, features) < 1e-5
    assert relative(ours.logits, logits) < 1e-5
    # The comparison would be empty if the random network told nothing apart.
    assert relative(features[0], features[1]) > 1e-2


def test_spatial_features_are_seven_channels_of_the_1x1_branch_of_mixed_6(
    extractor: Extractor, theirs: FeatureExtractorInceptionV3
) -> None:
    """Step by step through torch-fidelity's layers, and channel by channel."""
    images = smooth_images(1, 299, seed=1)
    with torch.inference_mode():
        maps = (images.permute(0, 3, 1, 2).float() - 128) / 128
        for name, layer in theirs.named_children():
            if name == "Mixed_6d":
                break
            maps = layer(maps)
        branch = theirs.Mixed_6d.branch1x1
        expected = branch.bn(branch.conv(maps)).clamp_min(0)[0]
        spatial = extractor(images).spatial
    assert spatial is not None
    assert extractor.spatial_size == 2023
    by_place = spatial[0].view(17, 17, 7)
    for channel in range(7):
        assert relative(by_place[:, :, channel], expected[channel]) < 1e-4
    assert spatial.std() > 0


def test_only_the_standard_weights_are_called_inception(
    inception_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(inception_weights.read_bytes()).hexdigest()
    named = load_extractor("inception", inception_weights)
    assert named.weights_sha256 == digest
    assert named.name == f"inception_{digest[:8]}"
    assert digest[:8] in named.display
    monkeypatch.setattr(inception, "STANDARD_SHA256", digest[:8])
    standard = load_extractor("inception", inception_weights)
    assert (standard.name, standard.display) == ("inception", "Inception")


def test_missing_weights_are_told_with_their_place_and_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    with pytest.raises(UserError) as refused:
        load_extractor("inception")
    assert str(tmp_path / "hub" / "checkpoints" / STANDARD_FILE) in str(refused.value)
    assert "https://github.com/toshas/torch-fidelity/releases" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_other_weights_in_the_cache_are_refused(
    inception_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    path = tmp_path / "hub" / "checkpoints" / STANDARD_FILE
    path.parent.mkdir(parents=True)
    path.symlink_to(inception_weights)
    with pytest.raises(UserError, match=r"has SHA-256 .*, expected 6726825d"):
        load_extractor("inception")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nonsense", "no file of tensors"),
        ({"fc.weight": torch.zeros(2)}, "do not fit the Inception network"),
        ([torch.zeros(2)], "no tensors by name"),
        (b"", "an empty file"),
    ],
)
def test_files_of_something_else_are_refused(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=message) as refused:
        load_extractor("inception", path)
    assert str(path) in str(refused.value)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"x": Evil()}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="no file of tensors"):
        load_extractor("inception", tmp_path / "weights.pth")
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file of weights .*nowhere.pth"):
        load_extractor("inception", tmp_path / "nowhere.pth")
