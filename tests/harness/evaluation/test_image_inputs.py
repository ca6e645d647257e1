from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.evaluation.image_inputs import HashedRows, open_images
from models.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3)).astype(np.uint8)
GREY = IMAGES[..., 0]
OPAQUE = np.concatenate([IMAGES, np.full((6, 5, 7, 1), 255, dtype=np.uint8)], axis=3)
Write = Callable[[Path, np.ndarray], Path]


def as_npz(folder: Path, images: np.ndarray) -> Path:
    np.savez(folder / "x.npz", arr_0=images, arr_1=np.arange(len(images)))
    return folder / "x.npz"


def as_compressed_npz(folder: Path, images: np.ndarray) -> Path:
    np.savez_compressed(folder / "x.npz", arr_0=images)
    return folder / "x.npz"


def as_npy(folder: Path, images: np.ndarray) -> Path:
    np.save(folder / "x.npy", images)
    return folder / "x.npy"


def as_folder(folder: Path, images: np.ndarray) -> Path:
    """In two folders, so that the order of paths is the order of images."""
    for number, image in enumerate(images):
        path = folder / "images" / f"{number // 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze()).save(path)
    return folder / "images"


def read_all(path: Path) -> np.ndarray:
    found = open_images(path).images
    return found[0 : len(found)]


WRITERS = [as_npz, as_compressed_npz, as_npy, as_folder]


@pytest.mark.parametrize("write", WRITERS)
def test_images_are_those_stored_in_their_order(write: Write, tmp_path: Path) -> None:
    found = open_images(write(tmp_path, IMAGES))
    assert found.images.shape == IMAGES.shape
    assert len(found.images) == 6
    parts = [found.images[start : start + 4] for start in (0, 4)]
    assert np.array_equal(np.concatenate(parts), IMAGES)
    assert found.notes == ()


def test_linked_folders_count_and_hidden_ones_do_not_which_is_said(tmp_path: Path) -> None:
    folder = as_folder(tmp_path, IMAGES)
    (folder / "1").rename(tmp_path / "elsewhere")
    (folder / "1").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "0" / "0.png").rename(folder / "0" / "0.PNG")
    for name in (".ipynb_checkpoints", "__MACOSX"):
        (folder / name).mkdir()
        Image.fromarray(IMAGES[0]).save(folder / name / "0.png")
    (folder / "0" / "x.heic").touch()
    found = open_images(folder)
    assert np.array_equal(found.images[0:7], IMAGES)
    assert found.notes == (
        f"{folder}: left out 1 image to convert to PNG, as they are not read here (.heic 1), "
        "2 hidden files or folders",
    )


def test_a_pointer_among_the_images_is_called_one(tmp_path: Path) -> None:
    folder = as_folder(tmp_path, IMAGES)
    (folder / "0" / "0.png").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    with pytest.raises(UserError, match=r"0\.png is a Git LFS pointer.*git lfs pull"):
        open_images(folder)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".jp2"])
def test_all_suffixes_of_a_format_are_taken(suffix: str, tmp_path: Path) -> None:
    for number in range(2):
        Image.fromarray(IMAGES[number]).save(tmp_path / f"{number}{suffix}")
    found = open_images(tmp_path)
    assert found.images.shape == (2, *IMAGES.shape[1:])
    assert found.images[0:2].shape == (2, *IMAGES.shape[1:])
    assert found.notes == ()


@pytest.mark.parametrize("write", WRITERS)
def test_grey_images_are_taken_and_this_is_said(write: Write, tmp_path: Path) -> None:
    found = open_images(write(tmp_path, GREY))
    assert found.images.shape == (6, 5, 7, 1)
    assert np.array_equal(found.images[0:6], GREY[..., None])
    assert "all images are grey" in found.notes[0]


def test_a_single_channel_is_grey(tmp_path: Path) -> None:
    found = open_images(as_npz(tmp_path, GREY[..., None]))
    assert np.array_equal(found.images[0:6], GREY[..., None])
    assert "grey" in found.notes[0]


def test_grey_among_colour_becomes_colour(tmp_path: Path) -> None:
    folder = as_folder(tmp_path, IMAGES)
    Image.fromarray(GREY[0]).save(folder / "0" / "0.png")
    found = open_images(folder)
    assert np.array_equal(found.images[0:1], np.repeat(GREY[:1, ..., None], 3, axis=3))
    assert "1 of 6 images are grey" in found.notes[0]


@pytest.mark.parametrize("write", WRITERS)
def test_opacity_is_dropped_where_all_is_opaque(write: Write, tmp_path: Path) -> None:
    found = open_images(write(tmp_path, OPAQUE))
    assert np.array_equal(found.images[0:6], IMAGES)


@pytest.mark.parametrize("write", WRITERS)
def test_transparent_images_are_refused(write: Write, tmp_path: Path) -> None:
    clear = OPAQUE.copy()
    clear[4, 1, 1, 3] = 254
    path = write(tmp_path, clear)
    with pytest.raises(UserError, match="transparent pixels") as refused:
        open_images(path).images[3:6]
    assert ("4.png" if path.is_dir() else f"{path}: image 4") in str(refused.value)


@pytest.mark.parametrize("write", [as_npz, as_compressed_npz, as_npy])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES / 255, "look like 0 to 1, so (255 * x).round().astype(np.uint8)"),
        (
            (IMAGES / 127.5 - 1).astype(np.float32),
            "look like -1 to 1, so (127.5 * x + 128).clip(0, 255).astype(np.uint8)",
        ),
        (IMAGES.astype(np.float32), "x.round().clip(0, 255)"),
        (np.where(IMAGES > 253, np.nan, IMAGES), "has pixels that are NaN or infinite"),
        (IMAGES.astype(np.int64), "int64, expected uint8: x.astype(np.uint8)"),
        (IMAGES.transpose(0, 3, 1, 2), "channels come first: np.transpose(x, (0, 2, 3, 1))"),
        (IMAGES[0], "a single image"),
        (IMAGES[..., :2], "expected (N, H, W, 3), or (N, H, W)"),
        (IMAGES[:1], "holds 1 images, but at least 2"),
        (IMAGES[:0], "holds 0 images, but at least 2"),
    ],
)
def test_arrays_of_something_else_are_refused_with_how_to_convert_them(
    write: Write, images: np.ndarray, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, images)
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        open_images(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_image_with_nan_is_named(tmp_path: Path) -> None:
    images = IMAGES.astype(np.float32)
    images[3, 0, 0, 0] = np.nan
    with pytest.raises(UserError, match="image 3 has pixels that are NaN"):
        open_images(as_npz(tmp_path, images))


def test_two_sizes_are_refused_with_an_image_of_each(tmp_path: Path) -> None:
    folder = as_folder(tmp_path, IMAGES)
    Image.new("RGB", (9, 8)).save(folder / "1" / "5.png")
    with pytest.raises(UserError) as refused:
        open_images(folder)
    assert "0.png is 7x5" in str(refused.value)
    assert "5.png is 9x8" in str(refused.value)


@pytest.mark.parametrize("write", [as_npz, as_compressed_npz, as_npy])
@pytest.mark.parametrize("kept", [0.9, 0.3, 0.01])
def test_a_truncated_file_is_named(write: Write, kept: float, tmp_path: Path) -> None:
    path = write(tmp_path, np.repeat(IMAGES, 50, axis=0))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError) as refused:
        read_all(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("write", [as_npz, as_compressed_npz])
def test_a_flipped_bit_is_noticed(write: Write, tmp_path: Path) -> None:
    path = write(tmp_path, np.repeat(IMAGES, 50, axis=0))
    content = bytearray(path.read_bytes())
    content[1000] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_all(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.7])
def test_a_truncated_image_is_named(kept: float, tmp_path: Path) -> None:
    folder = as_folder(
        tmp_path, np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    )
    path = folder / "0" / "2.png"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match=r"2\.png is"):
        open_images(folder).images[0:4]


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    folder = as_folder(tmp_path, IMAGES)
    Image.fromarray(np.zeros((5, 7), dtype=np.uint16)).save(folder / "0" / "1.png")
    with pytest.raises(UserError, match=r"1\.png has pixels of the kind I;16"):
        open_images(folder)


def test_what_holds_no_images_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", samples=IMAGES)
    with pytest.raises(UserError, match=r"x\.npz has no array arr_0.*it has samples"):
        open_images(tmp_path / "x.npz")
    with pytest.raises(UserError, match="holds no images"):
        open_images(tmp_path)
    with pytest.raises(UserError, match="there is no .*nowhere"):
        open_images(tmp_path / "nowhere")
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(UserError, match=r"x\.txt cannot be read"):
        open_images(tmp_path / "x.txt")


def test_the_hash_is_of_shape_and_pixels_whatever_the_batches() -> None:
    digests = b"".join(hashlib.sha256(image.tobytes()).digest() for image in IMAGES)
    whole = hashlib.sha256(repr(IMAGES.shape).encode() + digests).hexdigest()
    for size in (1, 4, 6):
        rows = HashedRows(IMAGES)
        for start in range(0, 6, size):
            rows[start : min(start + size, 6)]
        assert rows.sha256() == whole
    rows = HashedRows(IMAGES)
    rows[0:3]
    with pytest.raises(ValueError, match="3 of 6"):
        rows.sha256()


@pytest.mark.parametrize(
    ("scaled", "said"),
    [
        (lambda x: x * 2 - 1, "look like -1 to 1"),
        (lambda x: x * 2.1 - 1.05, "look like -1 to 1"),
        # As the mean and deviation of ImageNet make it.
        (lambda x: (x - 0.485) / 0.229, "fit neither 0 to 1 nor -1 to 1: decode latents"),
        (lambda x: (x - 0.5) * 9, "fit neither 0 to 1 nor -1 to 1: decode latents"),
        (lambda x: x * 255 - 1, "fit neither 0 to 1 nor -1 to 1: decode latents"),
    ],
)
def test_only_what_lies_there_is_taken_for_minus_one_to_one(scaled, said, tmp_path: Path) -> None:
    values = np.linspace(0, 1, 2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    np.save(tmp_path / "x.npy", scaled(values))
    with pytest.raises(UserError, match=said):
        open_images(tmp_path / "x.npy")


def test_what_is_no_file_of_arrays_is_called_what_it_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pictures.npz", "w") as archive:
        for number in range(10_000):
            archive.writestr(f"class/{number}.png", b"")
    (tmp_path / "pointer.npz").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    (tmp_path / "page.npz").write_text("<!DOCTYPE html><html></html>")
    (tmp_path / "stored.npy").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "empty.npy").touch()
    np.savez(tmp_path / "many.npz", **{f"a{number}": np.zeros(1) for number in range(99)})
    for name, said in (
        ("pictures.npz", "a zip of image files: unpack it"),
        ("pointer.npz", "a Git LFS pointer"),
        ("page.npz", "a web page"),
        ("stored.npy", "a pickle of Python objects"),
        ("empty.npy", "an empty file"),
        ("many.npz", r"it has a0, a1, a2, a3, a4, ... \(99 in all\)"),
    ):
        with pytest.raises(UserError, match=said) as refused:
            open_images(tmp_path / name)
        assert len(str(refused.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("shape", [(), (3, 0, 4, 3)])
def test_arrays_without_images_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    for dtype in (np.uint8, np.float32):
        np.save(tmp_path / "x.npy", np.zeros(shape, dtype))
        np.savez(tmp_path / "x.npz", arr_0=np.zeros(shape, dtype))
        for path in (tmp_path / "x.npy", tmp_path / "x.npz"):
            with pytest.raises(UserError, match="holds no images"):
                open_images(path)
