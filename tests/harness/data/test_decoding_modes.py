"""Kinds of pixels, orientations and animations. All are squares of the resolution asked for."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from harness.data.decoding import UnreadableImageError, decode_image, image_size

SIDE = 12
STREAM = np.random.default_rng(0)
RGB = STREAM.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
GREY = STREAM.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
ALPHA = STREAM.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
DEEP = STREAM.integers(0, 65536, (SIDE, SIDE, 4), dtype=np.uint16)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(content: bytes) -> NDArray[np.uint8]:
    return decode_image(content, SIDE)


def thrice(grey: NDArray[Any]) -> NDArray[Any]:
    """Grey as red, green and blue."""
    return np.stack([grey] * 3, -1)


def png_of_16_bits(color_type: int, channels: NDArray[np.uint16]) -> bytes:
    """As the standard says; Pillow writes grey ones alone."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, color_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM", "GIF"])
def test_grey_is_equal_in_all_channels(kind: str) -> None:
    assert np.array_equal(decoded(saved(Image.fromarray(GREY), kind)), thrice(GREY))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_one_bit_is_black_and_white(kind: str) -> None:
    bits = GREY > 127
    found = decoded(saved(Image.fromarray(bits), kind))
    assert np.array_equal(found, thrice(np.where(bits, 255, 0)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_transparency_is_dropped_and_laid_over_nothing(kind: str) -> None:
    clear = np.where(ALPHA > 127, ALPHA, 0).astype(np.uint8)
    color = Image.fromarray(np.dstack([RGB, clear]))
    assert np.array_equal(decoded(saved(color, kind)), RGB)
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(clear)])
    assert np.array_equal(decoded(saved(grey, kind)), thrice(GREY))


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 250, 10))])
@pytest.mark.filterwarnings("ignore:Palette images")
def test_a_palette_gives_its_colours_also_where_they_are_transparent(
    transparency: int | bytes | None,
) -> None:
    image = Image.fromarray(GREY % 20, "P")
    palette = STREAM.integers(0, 256, (20, 3), dtype=np.uint8)
    image.putpalette(palette.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    content = saved(image, "PNG", **options)
    assert np.array_equal(decoded(content), palette[GREY % 20])
    adm = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.array_equal(decoded(content), adm)


def cmyk_of(*values: int) -> Image.Image:
    return Image.new("CMYK", (SIDE, SIDE), values)


def rgb_of(cyan: float, magenta: float, yellow: float, black: float) -> NDArray[Any]:
    return (255 - np.array([cyan, magenta, yellow])) * (255 - black) / 255


@pytest.mark.parametrize("ink", [(0, 0, 0, 0), (200, 30, 90, 0), (10, 200, 60, 100)])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_also_where_adobe_inverts_it(kind: str, ink: tuple[int, ...]) -> None:
    content = saved(cmyk_of(*ink), kind, **({"quality": 100} if kind == "JPEG" else {}))
    if kind == "JPEG":
        assert b"Adobe" in content
    assert np.abs(decoded(content) - rgb_of(*ink)).max() <= 3


def test_adobes_ycck_is_converted() -> None:
    stored = np.array([120, 90, 150, 180])
    content = bytearray(saved(cmyk_of(*(255 - stored).tolist()), "JPEG", quality=100))
    # The last byte of Adobe's segment says that the first three channels are YCbCr.
    content[content.index(b"Adobe") + 11] = 2
    luma, blue, red, key = stored
    inverted = [
        luma + 1.402 * (red - 128),
        luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
        luma + 1.772 * (blue - 128),
    ]
    expected = rgb_of(*inverted, 255 - key)
    assert np.abs(decoded(bytes(content)) - expected).max() <= 3


def test_grey_of_16_bits_is_scaled_and_not_clipped() -> None:
    grey = DEEP[..., 0]
    images = {
        "PNG": png_of_16_bits(0, grey[..., None]),
        "TIFF": saved(Image.fromarray(grey), "TIFF"),
        "TIFF, high byte first": saved(Image.fromarray(grey.astype(">u2")), "TIFF"),
        "PGM": b"P5 %d %d 65535\n" % (SIDE, SIDE) + grey.astype(">u2").tobytes(),
        "JPEG2000": saved(Image.fromarray(grey), "JPEG2000", irreversible=False),
    }
    for name, content in images.items():
        found = decoded(content)
        assert np.abs(found - thrice(grey / 257)).max() < 1, name
        assert np.array_equal(found, thrice(grey >> 8)), name
    clipped = np.asarray(Image.open(io.BytesIO(images["PNG"])).convert("RGB"))
    assert (clipped == 255).mean() > 0.9, "Pillow's own conversion has learnt to scale"


@pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colours_of_16_bits_are_their_high_bytes(color_type: int, channels: int) -> None:
    values = DEEP[..., :channels]
    high = values >> 8
    expected = thrice(high[..., 0]) if channels == 2 else high[..., :3]
    assert np.array_equal(decoded(png_of_16_bits(color_type, values)), expected)


def test_floating_point_from_0_to_1_is_scaled() -> None:
    values = STREAM.random((SIDE, SIDE), dtype=np.float32)
    values[0, :2] = 0, 1
    found = decoded(saved(Image.fromarray(values), "TIFF"))
    assert np.array_equal(found, thrice(np.rint(values * 255)))


@pytest.mark.parametrize("wrong", [-0.1, 1.1, np.nan, np.inf])
def test_floating_point_of_unknown_white_is_unreadable(wrong: float) -> None:
    values = np.full((SIDE, SIDE), 0.5, dtype=np.float32)
    values[3, 4] = wrong
    with pytest.raises(UnreadableImageError, match="floating point outside 0 to 1"):
        decoded(saved(Image.fromarray(values), "TIFF"))


def test_integers_of_unknown_white_are_unreadable() -> None:
    values = np.arange(SIDE * SIDE, dtype=np.int32).reshape(SIDE, SIDE)
    with pytest.raises(UnreadableImageError, match="32 bits, whose white is unknown"):
        decoded(saved(Image.fromarray(values), "TIFF"))


UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    0: lambda stored: stored,
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored.transpose(1, 0, 2), 2),
    8: lambda stored: np.rot90(stored),
    9: lambda stored: stored,
}
"""What the standard of EXIF says of the first row and column that are stored."""


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("JPEG", {}), ("WEBP", {"lossless": True}), ("AVIF", {}), ("TIFF", {})],
)
def test_an_image_is_turned_upright(kind: str, options: dict[str, Any], orientation: int) -> None:
    image = Image.fromarray(RGB[:, : SIDE - 4])
    exif = Image.Exif()
    exif[0x0112] = orientation
    tag = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif}
    content = saved(image, kind, **options, **tag)
    stored = np.asarray(Image.open(io.BytesIO(saved(image, kind, **options))).convert("RGB"))
    expected = UPRIGHT[orientation](stored)
    assert image_size(content) == expected.shape[1::-1]
    lossless = saved(Image.fromarray(np.ascontiguousarray(expected)), "PNG")
    assert np.array_equal(decoded(content), decoded(lossless))


@pytest.mark.parametrize(
    "block", [b"Exif\0\0", b"Exif\0\0junk", b"Exif\0\0MM\0*\0\0\0\x08\0\x01", b"\0" * 40]
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File Read")
def test_a_damaged_block_of_exif_does_not_matter(block: bytes) -> None:
    image = Image.fromarray(RGB)
    content = saved(image, "JPEG", exif=block)
    assert np.array_equal(decoded(content), decoded(saved(image, "JPEG")))
    assert image_size(content) == (SIDE, SIDE)


@pytest.mark.parametrize(
    ("kind", "value"), [(2, b"6\0\0\0"), (11, struct.pack("<f", 6)), (7, b"\6\0\0\0")]
)
def test_an_orientation_that_is_no_whole_number_does_not_matter(kind: int, value: bytes) -> None:
    count = 1 if kind == 11 else 2
    entry = struct.pack("<HHI", 0x0112, kind, count) + value
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    found = Image.Exif()
    found.load(block)
    assert not isinstance(found[0x0112], int)
    assert np.array_equal(decoded(saved(Image.fromarray(RGB), "PNG", exif=block)), RGB)


@pytest.mark.parametrize(
    ("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})]
)
def test_of_an_animation_the_first_frame_is_taken(kind: str, options: dict[str, Any]) -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), color) for color in ("red", "blue")]
    content = saved(
        frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options
    )
    assert Image.open(io.BytesIO(content)).n_frames == 2
    assert (decoded(content) == (255, 0, 0)).all()
