from __future__ import annotations

import numpy as np
import pytest

from reports.figures.samples import MOST_CLASSES, Grid, draw_samples


def shades(
    classes: int, images: int, side: int = 8, channels: int = 1, start: int = 0
) -> np.ndarray:
    """Every image in one shade of its own."""
    values = np.arange(start, start + classes * images).reshape(classes, images, 1, 1, 1)
    return np.broadcast_to(values, (classes, images, side, side, channels)).astype(np.uint8)


def grid(variant: str, images: np.ndarray) -> Grid:
    return Grid(variant, 0, images, tuple(f"class {index}" for index in range(len(images))))


def centres(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The pixel in the middle of each cell of a picture."""
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    return picture[height // 2 :: height, width // 2 :: width]


def test_a_row_a_class_and_a_block_a_variant() -> None:
    first, second = shades(3, 4), shades(3, 4, start=100)
    figure = draw_samples([grid("a", first), grid("b", second)])
    left, right = (axes.get_images()[0].get_array() for axes in figure.axes)
    assert centres(np.asarray(left), 3, 4).tolist() == first[:, :, 0, 0, 0].tolist()
    assert centres(np.asarray(right), 3, 4).tolist() == second[:, :, 0, 0, 0].tolist()
    assert figure.axes[0].get_position().x1 < figure.axes[1].get_position().x0
    texts = [text.get_text() for text in figure.texts]
    assert texts == ["a", "b", "class 0", "class 1", "class 2"]


def test_class_labels_stand_beside_their_rows() -> None:
    figure = draw_samples([grid("a", shades(4, 2))])
    position = figure.axes[0].get_position()
    for row, label in enumerate(figure.texts[1:]):
        x, y = label.get_position()
        assert x < position.x0
        assert y == pytest.approx(position.y1 - (row + 0.5) * position.height / 4)


def test_tiny_images_are_enlarged_with_hard_edges() -> None:
    image = np.random.default_rng(0).integers(0, 255, (1, 1, 8, 8, 3)).astype(np.uint8)
    (axes,) = draw_samples([grid("a", image)]).axes
    picture = np.asarray(axes.get_images()[0].get_array())
    gap = (picture.shape[0] - 96) // 2
    assert (picture[gap:-gap, gap:-gap] == image[0, 0].repeat(12, axis=0).repeat(12, axis=1)).all()
    assert (picture[:gap] == 255).all()


def test_grey_images_are_drawn_grey_over_the_full_range() -> None:
    (axes,) = draw_samples([grid("a", shades(2, 2, start=100))]).axes
    image = axes.get_images()[0]
    assert (image.get_cmap().name, image.get_clim()) == ("gray", (0, 255))


def test_many_variants_show_fewer_images_each_and_many_classes_the_first() -> None:
    grids = [grid(f"v{index}", shades(MOST_CLASSES + 5, 8)) for index in range(8)]
    figure = draw_samples(grids)
    assert figure.get_figwidth() < 9
    assert sum(text.get_text().startswith("class") for text in figure.texts) == MOST_CLASSES


def test_names_are_literal_and_wrap_within_their_block() -> None:
    long = "plain_linear_attention_without_any_trick"
    figure = draw_samples([grid("$x_1$", shades(1, 2)), grid(long, shades(1, 2))])
    assert not figure.texts[0].get_parse_math()
    wrapped = figure.texts[1].get_text()
    assert "\n" in wrapped
    assert wrapped.replace("\n", "") == long
    figure.canvas.draw()


def test_names_break_at_hyphens_where_that_is_enough() -> None:
    figure = draw_samples([grid("p_dyn-k_dyn-d_dyn", shades(1, 2)) for _ in range(15)])
    titles = {text.get_text() for text in figure.texts if "dyn" in text.get_text()}
    assert titles == {"p_dyn-\nk_dyn-\nd_dyn"}
