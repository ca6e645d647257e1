from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from harness.sampling.grid import class_grid, save_grid_png, shown_classes


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
