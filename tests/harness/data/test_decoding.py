"""The crop, and what is no image. Kinds of pixels are in `test_decoding_modes.py`."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from harness.data.decoding import UnreadableImageError, decode_image, image_size

Pixels = NDArray[Any]

# pytest sets its own filters of warnings, without those of the module.
pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")


def pixels_of(height: int, width: int, seed: int = 0) -> Pixels:
    """A smooth picture with noise, as photographs are."""
    stream = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    smooth = np.stack([rows * 200 / height, columns * 200 / width, (rows + columns) % 200], -1)
    return (smooth + stream.integers(0, 56, (height, width, 3))).astype(np.uint8)


def encoded(pixels: Pixels, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def box(distance: Pixels) -> Pixels:
    return ((distance > -0.5) & (distance <= 0.5)).astype(float)


def bicubic(distance: Pixels) -> Pixels:
    """Keys 1981, with a = -1/2."""
    x = np.abs(distance)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def weights(before: int, after: int, kernel: Callable[[Pixels], Pixels]) -> Pixels:
    """(after, before): what each pixel before gives to each one after."""
    scale = before / after
    centers = (np.arange(after) + 0.5) * scale
    distance = (np.arange(before) + 0.5)[None, :] - centers[:, None]
    found = kernel(distance / max(scale, 1.0))
    return found / found.sum(1, keepdims=True)


def resized(pixels: Pixels, height: int, width: int, kernel: Callable[[Pixels], Pixels]) -> Pixels:
    down = weights(pixels.shape[0], height, kernel)
    across = weights(pixels.shape[1], width, kernel)
    sums = np.einsum("yY,YXc,xX->yxc", down, pixels.astype(float), across, optimize=True)
    return np.clip(np.floor(sums + 0.5), 0, 255)


def center_crop(pixels: Pixels, resolution: int) -> Pixels:
    """ADM's crop by plain sums over all pixels."""
    height, width = pixels.shape[:2]
    while min(height, width) >= 2 * resolution:
        height, width = height // 2, width // 2
        pixels = resized(pixels, height, width, box)
    scale = resolution / min(height, width)
    height, width = round(height * scale), round(width * scale)
    pixels = resized(pixels, height, width, bicubic)
    top, left = (height - resolution) // 2, (width - resolution) // 2
    return pixels[top : top + resolution, left : left + resolution]


@pytest.mark.parametrize(
    ("height", "width", "resolution"),
    [
        *((64, 64, 64), (56, 75, 64), (75, 56, 64), (127, 90, 64), (128, 128, 64)),
        *((129, 300, 64), (300, 201, 32), (333, 150, 32), (20, 64, 64), (1, 3, 8)),
    ],
)
def test_the_crop_is_adms_by_plain_sums(height: int, width: int, resolution: int) -> None:
    pixels = pixels_of(height, width)
    found = decode_image(encoded(pixels), resolution)
    assert found.shape == (resolution, resolution, 3)
    assert found.dtype == np.uint8
    assert found.flags.writeable
    assert found.flags.c_contiguous
    # Pillow rounds after each direction, of which its version and the size say which is first.
    difference = np.abs(found - center_crop(pixels, resolution))
    assert difference.max() <= 3
    assert difference.mean() < 1


def test_a_square_of_the_resolution_is_left_as_it_is() -> None:
    pixels = pixels_of(40, 40)
    assert np.array_equal(decode_image(encoded(pixels), 40), pixels)


def test_halving_is_the_mean_of_four_pixels() -> None:
    pixels = pixels_of(64, 64)
    means = pixels.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(decode_image(encoded(pixels), 32) - means).max() <= 1


def test_of_a_long_image_the_middle_is_kept() -> None:
    pixels = pixels_of(32, 131)
    # 99 columns are too many: 49 go on the left and 50 on the right.
    assert np.array_equal(decode_image(encoded(pixels), 32), pixels[:, 49:81])
    upright = pixels.transpose(1, 0, 2)
    assert np.array_equal(decode_image(encoded(upright), 32), upright[49:81])


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (77, 500), (64, 64)])
def test_one_colour_stays_that_colour(size: tuple[int, int]) -> None:
    color = np.array([10, 200, 255], dtype=np.uint8)
    found = decode_image(encoded(np.broadcast_to(color, (*size, 3)).copy()), 64)
    assert (found == color).all()


def test_all_real_images_are_decoded_and_cropped_as_by_plain_sums(shared_data: Path) -> None:
    with zipfile.ZipFile(shared_data / "imagenet-sample.zip") as archive:
        contents = [archive.read(name) for name in archive.namelist()]
    found = [decode_image(content, 64) for content in contents]
    assert {image.shape for image in found} == {(64, 64, 3)}
    assert len({image.tobytes() for image in found}) == len(contents) == 106
    for content, image in list(zip(contents, found, strict=True))[::40]:
        plain = Image.open(io.BytesIO(content))
        assert image_size(content) == plain.size
        difference = np.abs(image - center_crop(np.asarray(plain.convert("RGB")), 64))
        assert difference.max() <= 3
        assert difference.mean() < 1


KINDS: dict[str, dict[str, Any]] = {
    "JPEG": {},
    "JPEG progressive": {"progressive": True},
    "PNG": {},
    "WEBP": {},
    "WEBP lossless": {"lossless": True},
    "AVIF": {},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
    "TIFF deflated": {"compression": "tiff_adobe_deflate"},
    "PPM": {},
    "JPEG2000": {},
}


@pytest.fixture(params=KINDS)
def whole(request: pytest.FixtureRequest) -> bytes:
    """An image of 60x40 pixels in each format."""
    return encoded(pixels_of(40, 60), request.param.split()[0], **KINDS[request.param])


def test_a_format_is_told_by_content(whole: bytes) -> None:
    plain = np.asarray(Image.open(io.BytesIO(whole)).convert("RGB"))
    assert image_size(whole) == (60, 40)
    assert np.array_equal(decode_image(whole, 40), plain[:, 10:50])


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.5, 0.8, 0.95])
def test_a_truncated_image_is_unreadable(whole: bytes, kept: float) -> None:
    with pytest.raises(UnreadableImageError, match="^truncated or damaged$"):
        decode_image(whole[: int(len(whole) * kept)], 16)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000"])
def test_an_image_of_twelve_bytes_is_truncated(kind: str) -> None:
    content = encoded(pixels_of(40, 60), kind)[:12]
    for question in (image_size, lambda content: decode_image(content, 16)):
        with pytest.raises(UnreadableImageError, match="^truncated or damaged$"):
            question(content)


def test_a_damaged_image_is_unreadable() -> None:
    content = bytearray(encoded(pixels_of(40, 60)))
    start = content.index(b"IDAT") + 100
    content[start : start + 50] = bytes(50)
    with pytest.raises(UnreadableImageError, match="^truncated or damaged$"):
        decode_image(bytes(content), 16)


@pytest.mark.parametrize(
    "content",
    [b"text", bytes(1000), b"\x1f\x8b" + bytes(50), b"%!PS-Adobe-3.0 EPSF-3.0\n"],
)
def test_what_is_no_image_is_unreadable(content: bytes) -> None:
    for question in (image_size, lambda content: decode_image(content, 16)):
        with pytest.raises(UnreadableImageError, match="^not an image$"):
            question(content)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*pull"),
        (b"\n<html><body>404</body></html>", "web page.*fetch it again"),
    ],
)
def test_what_stands_in_the_place_of_an_image_is_named(content: bytes, kind: str) -> None:
    with pytest.raises(UnreadableImageError, match=kind):
        decode_image(content, 16)


def test_an_eps_runs_no_other_program() -> None:
    content = encoded(pixels_of(8, 8), "EPS")
    assert Image.open(io.BytesIO(content)).format == "EPS"
    with pytest.raises(UnreadableImageError, match="^not an image$"):
        decode_image(content, 8)


def test_an_empty_file_is_unreadable() -> None:
    with pytest.raises(UnreadableImageError, match="^empty file$"):
        decode_image(b"", 16)


def claiming(width: int, height: int) -> bytes:
    """A small PNG whose header claims another size."""
    content = bytearray(encoded(pixels_of(4, 4)))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize("limit", [89_478_485, None])
def test_a_decompression_bomb_is_unreadable_whatever_pillow_was_told(
    monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for question in (image_size, lambda content: decode_image(content, 16)):
        with pytest.raises(UnreadableImageError, match="^decompression bomb"):
            question(claiming(20_000, 20_000))


def test_a_line_of_pixels_does_not_become_a_picture_of_any_length() -> None:
    content = encoded(np.zeros((1, 100_000, 3), dtype=np.uint8))
    with pytest.raises(UnreadableImageError, match="^decompression bomb of 25600000x256 pixels"):
        decode_image(content, 256)


def test_no_warning_of_pillow_reaches_the_user(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0" + bytes(range(20))
    palette = encoded(pixels_of(8, 8), "PNG")
    indexed = io.BytesIO()
    Image.open(io.BytesIO(palette)).convert("P").save(indexed, "PNG", transparency=bytes(range(9)))
    noisy = {
        "exif": encoded(pixels_of(8, 8), "JPEG", exif=exif),
        "palette": indexed.getvalue(),
        "large": claiming(10_000, 10_000),
    }
    for name, content in noisy.items():
        (tmp_path / name).write_bytes(content)
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        Image.open(tmp_path / "exif").getexif()
    with pytest.warns(UserWarning, match="Palette images with Transparency"):
        Image.open(tmp_path / "palette").convert("RGB")
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(tmp_path / "large")
    program = (
        "import sys, pathlib\n"
        "from harness.data.decoding import decode_image, image_size\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "for name in ('exif', 'palette'): decode_image((folder / name).read_bytes(), 8)\n"
        "print(*image_size((folder / 'large').read_bytes()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, tmp_path],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "10000 10000\n", "")
