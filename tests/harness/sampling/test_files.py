from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

from harness.config.schema import TrialConfig
from harness.config.sections import SampleConfig
from harness.sampling.files import (
    FileSink,
    class_grid,
    load_samples,
    save_grid_png,
    save_samples,
    shown_classes,
)
from harness.sampling.sample import SampleSpec, draw_samples
from models.errors import UserError
from models.objectives.flow import Config as FlowConfig

COUNT = 10


class Network(nn.Module):
    """Depends on its input and its labels; stops after some calls, as a killed process would."""

    null_label = 3

    def __init__(self, calls: int | None = None) -> None:
        super().__init__()
        self.left = calls

    def forward(self, images: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return images * labels.view(-1, 1, 1, 1) + timesteps.view(-1, 1, 1, 1) / 1000


def draw(config: SampleConfig, network: nn.Module, sink: FileSink | None) -> np.ndarray:
    samples = draw_samples(
        network.eval(),
        SampleSpec(config, FlowConfig(), shape=(1, 4, 4), num_classes=3, count=COUNT, seed=5),
        "cpu",
        sink=sink,
    )
    return np.array(samples.images)


@pytest.fixture
def config(trial_config: Callable[..., TrialConfig]) -> SampleConfig:
    sample = trial_config("sana").sample
    return sample.model_copy(update={"sampler": "flow_euler", "steps": 2, "batch_size": 3})


@pytest.mark.parametrize("calls", [0, 1, 2, 5, 7])
def test_going_on_after_an_interruption_gives_the_same_samples(
    tmp_path: Path, config: SampleConfig, calls: int
) -> None:
    whole = draw(config, Network(), None)
    with pytest.raises(KeyboardInterrupt):
        draw(config, Network(calls), FileSink(tmp_path, COUNT, "trial"))
    rest = FileSink(tmp_path, COUNT, "trial")
    assert rest.done == 3 * (calls // 2)
    assert np.array_equal(draw(config, Network(), rest), whole)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "samples.partial.json").write_text("{"),
        lambda folder: (folder / "samples.partial.npy").write_bytes(b"\x93NUMPY"),
        lambda folder: (folder / "samples.partial.npy").unlink(),
    ],
)
def test_what_is_damaged_is_drawn_again(
    tmp_path: Path, config: SampleConfig, spoil: Callable[[Path], None]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        draw(config, Network(4), FileSink(tmp_path, COUNT, "trial"))
    spoil(tmp_path)
    sink = FileSink(tmp_path, COUNT, "trial")
    assert sink.done == 0
    assert np.array_equal(draw(config, Network(), sink), draw(config, Network(), None))


def test_samples_of_another_origin_or_count_are_not_gone_on_with(
    tmp_path: Path, config: SampleConfig
) -> None:
    with pytest.raises(KeyboardInterrupt):
        draw(config, Network(4), FileSink(tmp_path, COUNT, "trial"))
    assert FileSink(tmp_path, COUNT, "trial").done == 6
    assert FileSink(tmp_path, COUNT, "another").done == 0
    assert FileSink(tmp_path, COUNT + 1, "trial").done == 0


def test_removing_leaves_nothing(tmp_path: Path, config: SampleConfig) -> None:
    sink = FileSink(tmp_path, COUNT, "trial")
    draw(config, Network(), sink)
    sink.remove()
    assert list(tmp_path.iterdir()) == []


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


def test_rows_are_classes_and_cells_go_by_index() -> None:
    labels = np.array([1, 0, 1, 0, 1, 0])
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    grid = class_grid(images, labels, shown=(0, 1), per_class=2)
    assert grid.shape == (2, 2, 1, 1, 1)
    assert grid[..., 0, 0, 0].tolist() == [[1, 3], [0, 2]]


def test_a_class_without_enough_images_gets_grey_cells() -> None:
    images = np.full((3, 2, 2, 3), 9, dtype=np.uint8)
    grid = class_grid(images, np.array([0, 0, 1]), shown=(0, 1, 2), per_class=2)
    assert (grid[0] == 9).all()
    assert (grid[1, 0] == 9).all()
    assert (grid[1, 1] == 127).all()
    assert (grid[2] == 127).all()


def test_the_png_shows_every_pixel_enlarged_without_smoothing(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for channels in (1, 3):
        grid = random.integers(0, 256, (3, 4, 8, 8, channels), dtype=np.uint8)
        path = tmp_path / "deep" / f"grid{channels}.png"
        save_grid_png(path, grid)
        picture = np.asarray(Image.open(path)).reshape(*Image.open(path).size[::-1], channels)
        factor = 6
        cell = 8 * factor + 2
        assert picture.shape[:2] == (3 * cell + 2, 4 * cell + 2)
        for row in range(3):
            for column in range(4):
                top, left = row * cell + 2, column * cell + 2
                shown = picture[top : top + 48, left : left + 48]
                for offset in (0, factor - 1):
                    assert np.array_equal(shown[offset::factor, offset::factor], grid[row, column])
        assert [file.name for file in path.parent.iterdir() if file.suffix != ".png"] == []


def test_large_images_keep_their_size(tmp_path: Path) -> None:
    path = tmp_path / "grid.png"
    save_grid_png(path, np.zeros((1, 2, 64, 64, 3), dtype=np.uint8))
    assert Image.open(path).size == (2 * 66 + 2, 68)


def test_of_many_classes_some_are_shown_from_first_to_last() -> None:
    assert shown_classes(3) == (0, 1, 2)
    many = shown_classes(1000)
    assert (len(set(many)), many[0], many[-1]) == (20, 0, 999)
