from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.sampling.sinks import load_samples, save_samples
from models.errors import UserError


def some(channels: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (5, 4, 6, channels), dtype=np.uint8)
    return images, np.array([3, 1, 4, 1, 5])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_layout_is_that_of_adm(tmp_path: Path, channels: int) -> None:
    images, labels = some(channels)
    path = tmp_path / "new" / "samples.npz"
    save_samples(path, images, labels)
    with np.load(path, allow_pickle=False) as stored:
        assert stored.files == ["arr_0", "arr_1"]
        assert stored["arr_0"].shape == (5, 4, 6, 3)
        assert stored["arr_0"].dtype == np.uint8
        for channel in range(3):
            assert np.array_equal(stored["arr_0"][..., channel], images[..., channel % channels])
        assert np.array_equal(stored["arr_1"], labels)
    assert [file.name for file in path.parent.iterdir()] == ["samples.npz"]
    again, labels_again = load_samples(path)
    assert np.array_equal(again, np.broadcast_to(images, again.shape))
    assert np.array_equal(labels_again, labels)


def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    save_samples(path, *some(3))
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    for broken in (bytes(content), bytes(content[:300]), b"", b"text"):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"samples\.npz"):
            load_samples(path)


def test_a_missing_file_and_other_layouts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    with pytest.raises(UserError, match=r"samples\.npz"):
        load_samples(path)
    images, labels = some(3)
    np.savez(path, arr_0=images)
    with pytest.raises(UserError, match="arr_1"):
        load_samples(path)
    np.savez(path, arr_0=images.astype(float), arr_1=labels)
    with pytest.raises(UserError, match="arr_0 must be uint8"):
        load_samples(path)
    np.savez(path, arr_0=images, arr_1=labels[:2])
    with pytest.raises(UserError, match="arr_1 must be 5 labels"):
        load_samples(path)


def test_other_shapes_are_not_written(tmp_path: Path) -> None:
    images, labels = some(3)
    for wrong, tags in ((images.astype(float), labels), (images[..., :2], labels), (images, [1])):
        with pytest.raises(ValueError, match="samples"):
            save_samples(tmp_path / "samples.npz", wrong, np.asarray(tags))
    assert list(tmp_path.iterdir()) == []


def test_images_stay_on_the_disk_until_they_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    save_samples(path, *some(3))
    images, _ = load_samples(path)
    assert isinstance(images, np.memmap)


def test_compressed_files_of_others_are_read_as_well(tmp_path: Path) -> None:
    images, labels = some(3)
    np.savez_compressed(tmp_path / "samples.npz", arr_0=images, arr_1=labels)
    again, _ = load_samples(tmp_path / "samples.npz")
    assert np.array_equal(again, images)
