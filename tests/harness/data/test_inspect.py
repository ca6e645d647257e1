from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data.inspect import contact_sheet, describe
from harness.data.manifest import Manifest, ManifestClass
from models.errors import UserError
from tests.support.stand_ins.memory_source import MemorySource, make, picture, pictures


def uneven() -> dict[str, bytes]:
    """1, 2 and 4 images a class."""
    kept = {"c0/i0.png", "c1/i0.png", "c1/i3.png", *(f"c2/i{number}.png" for number in range(4))}
    return {entry: content for entry, content in pictures().items() if entry in kept}


def test_classes_are_counted() -> None:
    files = uneven()
    source = MemorySource(files)
    described = describe(make(source), None)
    sizes = [[len(files[e]) for e in sorted(files) if e.startswith(f"c{n}")] for n in range(3)]
    assert described.image_bytes == tuple(map(tuple, sizes))
    assert list(map(len, sizes)) == [1, 2, 4]
    assert described.image_sizes is None


def test_widths_and_heights_are_ordered_by_area() -> None:
    sizes = [(9, 9), (40, 1), (2, 8), (7, 30), (16, 16)]
    files = {f"c/{number}.png": picture(*size) for number, size in enumerate(sizes)}
    source = MemorySource(files)
    found = describe(make(source), source).image_sizes
    assert found is not None
    assert found.sampled == 5
    assert (found.smallest, found.median, found.largest) == ((2, 8), (9, 9), (16, 16))
    del source.files["c/0.png"]
    even = describe(make(source), source).image_sizes
    assert even is not None
    assert even.median == (40, 1)


def test_a_sample_is_bounded_and_the_same_each_time() -> None:
    files = {f"c/{number}.png": picture(number + 1, 2) for number in range(20)}
    source = MemorySource(files)
    manifest = make(source)
    first = describe(manifest, source, sampled=3).image_sizes
    assert first is not None
    assert first.sampled == 3
    assert describe(manifest, source, sampled=3).image_sizes == first
    every = describe(manifest, source, sampled=100).image_sizes
    assert every is not None
    assert (every.sampled, every.smallest, every.largest) == (20, (1, 2), (20, 2))


def test_an_image_that_is_gone_is_told() -> None:
    files = pictures()
    manifest = make(MemorySource(files))
    del files["c1/i2.png"]
    with pytest.raises(UserError, match=r"memory lacks c1/i2.png.*data verify"):
        describe(manifest, MemorySource(files))


def test_an_image_that_became_something_else_is_told() -> None:
    files = pictures()
    manifest = make(MemorySource(files))
    with pytest.raises(UserError, match="c1/i2.png in memory cannot be read"):
        describe(manifest, MemorySource({**files, "c1/i2.png": b"text"}))


COLOURS = ["red", "lime", "blue", "yellow"]


SIDE, STEP, ROW, GAP = 96, 100, 116, 4


def plain(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 30), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def source() -> MemorySource:
    """A class a colour, of 3 images each."""
    return MemorySource(
        {
            f"c{label}/i{number}.png": plain(colour)
            for label, colour in enumerate(COLOURS)
            for number in range(3)
        }
    )


def opened(path: Path) -> Image.Image:
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        return sheet.convert("RGB")


def colour_at(sheet: Image.Image, row: int, column: int) -> tuple[int, ...]:
    """The one colour of an image on the sheet."""
    left, top = GAP + column * STEP, GAP + row * ROW
    pixels = np.asarray(sheet.crop((left, top, left + SIDE, top + SIDE)))
    assert (pixels == pixels[0, 0]).all()
    return tuple(pixels[0, 0].tolist())


def caption(sheet: Image.Image, row: int) -> np.ndarray:
    """The ink under a row of images, (16, W)."""
    top = GAP + row * ROW + SIDE
    return np.asarray(sheet.crop((0, top, sheet.width, top + ROW - SIDE)).convert("L")) < 128


def test_each_class_is_a_row_with_its_name_under_it(tmp_path: Path, source: MemorySource) -> None:
    path = tmp_path / "made" / "sheet.png"
    contact_sheet(make(source), source, path, images=3)
    sheet = opened(path)
    assert sheet.size == (GAP + 3 * STEP, GAP + 4 * ROW)
    expected = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    for row, colour in enumerate(expected):
        assert [colour_at(sheet, row, column) for column in range(3)] == [colour] * 3
        assert caption(sheet, row).any()
    assert [*path.parent.iterdir()] == [path]


def named(manifest: Manifest, name: str) -> Manifest:
    classes = (ManifestClass("c0", name), *manifest.classes[1:])
    return dataclasses.replace(manifest, classes=classes)


@pytest.mark.parametrize("name", ["w" * 500, "\u72ac\udcff", "two\nlines", "caf\u00e9", ""])
def test_any_name_stays_within_its_row(tmp_path: Path, source: MemorySource, name: str) -> None:
    manifest = named(make(source), name)
    contact_sheet(manifest, source, tmp_path / "sheet.png", images=2)
    ink = caption(opened(tmp_path / "sheet.png"), 0)
    assert ink.any() == bool(name)
    assert not ink[:, -GAP:].any()
    assert not ink[-1].any()


def test_rows_and_columns_are_bounded_and_the_same_each_time(
    tmp_path: Path, source: MemorySource
) -> None:
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    contact_sheet(make(source), source, first, classes=2, images=1)
    assert opened(first).size == (GAP + STEP, GAP + 2 * ROW)
    turned = MemorySource(dict(reversed(source.files.items())))
    contact_sheet(make(turned), turned, again, classes=2, images=1)
    assert again.read_bytes() == first.read_bytes()


def test_classes_of_different_sizes_share_a_sheet(tmp_path: Path, source: MemorySource) -> None:
    del source.files["c1/i0.png"], source.files["c1/i1.png"]
    contact_sheet(make(source), source, tmp_path / "sheet.png")
    sheet = opened(tmp_path / "sheet.png")
    assert colour_at(sheet, 1, 0) == (0, 255, 0)
    assert colour_at(sheet, 1, 1) == (255, 255, 255)
    assert sheet.width == GAP + 8 * STEP


def test_an_image_that_is_another_leaves_no_sheet(tmp_path: Path, source: MemorySource) -> None:
    manifest = make(source)
    source.files["c2/i1.png"] = plain("black")
    with pytest.raises(UserError, match="c2/i1.png in memory is not the image"):
        contact_sheet(manifest, source, tmp_path / "sheet.png")
    assert not [*tmp_path.iterdir()]
