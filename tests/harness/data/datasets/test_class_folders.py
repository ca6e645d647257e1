from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from harness.data.datasets.cifar10 import open_class_folders, read_class_folders
from models.errors import UserError

Build = Callable[..., Path]


def zipped(folder: Path, *, below: str = "", reverse: bool = False) -> Path:
    """The same files in a zip, optionally below a wrapping folder and in another order."""
    target = folder.parent / "images.zip"
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*"), reverse=reverse):
            archive.write(path, below + path.relative_to(folder).as_posix())
    return target


def test_labels_and_pixels_are_those_of_torchvisions_reader(class_folders: Build) -> None:
    folder = class_folders("cat", "ant", "bee", images=3, side=8)
    theirs = ImageFolder(str(folder))
    ours = read_class_folders(open_class_folders(folder), 8)
    assert list(ours.class_names) == theirs.classes
    assert ours.labels.tolist() == theirs.targets
    expected = np.stack([np.asarray(image) for image, _ in theirs]).transpose(0, 3, 1, 2)
    assert torch.equal(ours.images, torch.from_numpy(expected))


@pytest.mark.parametrize("below", ["", "train/", "a/b/"])
def test_a_zip_is_the_same_as_its_folder_whatever_its_order(
    class_folders: Build, below: str
) -> None:
    folder = class_folders("x", "y", images=4, side=8)
    archive = zipped(folder, below=below, reverse=True)
    assert read_class_folders(open_class_folders(archive), 8).fingerprint() == (
        read_class_folders(open_class_folders(folder), 8).fingerprint()
    )


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "RGBA", "I;16"])
def test_every_kind_of_image_becomes_rgb_as_pillow_does_it(
    tmp_path: Path, class_folders: Build, mode: str
) -> None:
    folder = class_folders("a", images=1, side=8)
    (source,) = folder.rglob("*.png")
    if mode == "I;16":
        image = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    else:
        image = Image.open(source).convert(mode)
    path = source.with_suffix(".tiff")
    image.save(path)
    source.unlink()
    expected = np.array(Image.open(path).convert("RGB")).transpose(2, 0, 1)
    assert torch.equal(
        read_class_folders(open_class_folders(folder), 8).images[0], torch.from_numpy(expected)
    )


def test_all_bad_images_are_told_in_one_line(class_folders: Build) -> None:
    folder = class_folders("a", "b", images=5, side=8)
    (folder / "a" / "0001.png").write_bytes(b"no image")
    whole = (folder / "b" / "0002.png").read_bytes()
    (folder / "b" / "0002.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (9, 8)).save(folder / "b" / "0003.png")
    (folder / "b" / "0004.png").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    for source in (folder, zipped(folder)):
        with pytest.raises(UserError) as caught:
            read_class_folders(open_class_folders(source), 8)
        line = str(caught.value)
        assert "\n" not in line
        assert "4 of 10 images cannot be used" in line
        assert "a/0001.png (not an image)" in line
        assert "b/0002.png (" in line
        assert "b/0003.png (9x8 instead of 8x8 pixels)" in line
        assert "b/0004.png (a Git LFS pointer" in line


def test_only_the_first_of_many_bad_images_are_named(class_folders: Build) -> None:
    with pytest.raises(UserError, match="and 15 more"):
        read_class_folders(open_class_folders(class_folders("a", images=20, side=8)), 16)


def test_a_zip_with_damaged_and_encrypted_members_is_refused(class_folders: Build) -> None:
    folder = class_folders("a", images=2, side=8)
    archive = zipped(folder)
    content = bytearray(archive.read_bytes())
    start = content.index(b"IDAT")
    content[start + 4 : start + 12] = os.urandom(8)
    # The flag of an encrypted member, in the directory entry of the second.
    entry = content.index(
        b"PK\x01\x02", content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1) + 1
    )
    content[entry + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match="2 of 2 images cannot be used"):
        read_class_folders(open_class_folders(archive), 8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "text.zip", "neither a folder nor a zip"),
        (lambda root: root / "empty", "holds no image"),
        (lambda root: root / "flat", "expected images as CLASS/IMAGE, but found 0.png"),
        (lambda root: root / "deep", "expected images as CLASS/IMAGE, but found a/b/1.png"),
    ],
)
def test_what_holds_no_class_folders_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    (tmp_path / "text.zip").write_text("no archive")
    (tmp_path / "empty").mkdir()
    image = Image.new("RGB", (8, 8))
    for name in ("flat/0.png", "flat/a/1.png", "deep/a/b/1.png", "deep/a/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / name)
    with pytest.raises(UserError, match=message):
        read_class_folders(open_class_folders(make(tmp_path)), 8)
