"""Which files of a folder are images, and of which class."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from harness.data.decoding import image_size
from harness.data.walk import (
    FORMATS,
    SUFFIXES,
    class_order,
    first_image,
    walk_images,
)
from models.errors import UserError


def filled(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def test_images_at_any_depth_are_found_with_their_sizes(tmp_path: Path) -> None:
    walk = walk_images(filled(tmp_path, "b/1.png", "a-b/1.jpg", "a/x/y/2.JPE", "a/1.jfif", "0.tif"))
    assert walk.names == ("0.tif", "a/1.jfif", "a/x/y/2.JPE", "a-b/1.jpg", "b/1.png")
    assert walk.sizes == tuple(map(len, walk.names))
    assert walk.files == tuple(sorted(path for path in tmp_path.rglob("*") if path.is_file()))
    assert not str(walk.left_out)
    assert first_image(tmp_path) in walk.names


def test_linked_folders_are_followed_wherever_they_lead(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", "n01/1.png", "n02/sub/2.png")
    cut = tmp_path / "cut"
    cut.mkdir()
    for name in ("n01", "n02"):
        (cut / name).symlink_to(store / name, target_is_directory=True)
    assert walk_images(cut).names == ("n01/1.png", "n02/sub/2.png")


@pytest.mark.parametrize("suffix", [".jpg", ".jpe", ".JFIF", ".webp", ".bmp", ".tif", ".jp2"])
def test_what_pillow_writes_under_a_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    Image.new("RGB", (7, 5)).save(path)
    assert walk_images(tmp_path).files == (path,)
    assert image_size(path.read_bytes()) == (7, 5)


def test_the_suffixes_are_all_that_pillow_knows_of_the_formats_that_are_read() -> None:
    Image.init()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
    assert known - set(SUFFIXES) == set()


def test_what_is_left_out_is_counted_by_kind(tmp_path: Path) -> None:
    others = [f"a/{number}.HEIC" for number in range(3)]
    hidden = (
        ".ipynb_checkpoints/1.png",
        ".ipynb_checkpoints/2.png",
        "__MACOSX/a/1.png",
        "a/._1.png",
    )
    filled(tmp_path, "a/1.png", "list.txt", *others, *hidden)
    os.mkfifo(tmp_path / "a" / "pipe.png")
    walk = walk_images(tmp_path)
    assert walk.names == ("a/1.png",)
    assert str(walk.left_out) == (
        "left out 3 images to convert to PNG, as they are not read here (.heic 3), "
        "2 files of no image format (no suffix 1, .txt 1), 3 hidden files or folders"
    )


def test_only_the_most_frequent_suffixes_are_named(tmp_path: Path) -> None:
    filled(tmp_path, *(f"{number}.x{number}" for number in range(9)))
    words = str(walk_images(tmp_path).left_out)
    assert words.startswith("left out 9 files")
    assert words.count(" 1, ") == 5


@pytest.mark.parametrize("name", ["n01", "a.png"])
def test_a_link_to_nothing_is_refused(tmp_path: Path, name: str) -> None:
    filled(tmp_path, "b/1.png")
    (tmp_path / name).symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=f"{name} is a link to nothing"):
        walk_images(tmp_path)


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "self").symlink_to(tmp_path / "self")
    with pytest.raises(UserError):
        walk_images(tmp_path)


def test_a_folder_that_may_not_be_listed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, "a/1.png", "b/1.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if path.name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"/b cannot be listed \(Permission denied\)"):
        walk_images(tmp_path)


def test_numbers_are_sorted_by_value_before_other_names() -> None:
    names = ["10", "2", "x", "02", "0", "1", "-1", "9" * 5000, "\u0664", "10a"]
    assert sorted(names, key=class_order) == [
        *("0", "1", "02", "2", "10", "9" * 5000),
        *("-1", "10a", "x", "\u0664"),
    ]
