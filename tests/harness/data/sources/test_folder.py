from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data.sources import open_source
from models.errors import UserError

Images = dict[str, bytes]
Pack = Callable[[str, Images], Path]


def test_linked_class_folders_and_images_count(pack: Pack, tmp_path: Path) -> None:
    folder = pack("folder", {"real/1.png": b"one", "real/2.png": b"three"})
    subset = tmp_path / "subset"
    (subset / "own").mkdir(parents=True)
    (subset / "linked").symlink_to(folder / "real", target_is_directory=True)
    (subset / "own" / "3.png").symlink_to(folder / "real" / "2.png")
    source = open_source(subset)
    assert [(entry.id, entry.size) for entry in source.entries()] == [
        ("linked/1.png", 3),
        ("linked/2.png", 5),
        ("own/3.png", 5),
    ]
    assert source.read("own/3.png") == b"three"


def test_a_link_to_nothing_is_named(pack: Pack) -> None:
    folder = pack("folder", {"a/1.png": b"", "a/2.png": b""})
    (folder / "a" / "3.png").symlink_to(folder / "gone.png")
    with pytest.raises(UserError, match=r"a/3.png is a link to nothing"):
        open_source(folder).entries()


def test_a_loop_of_links_is_not_followed(pack: Pack) -> None:
    folder = pack("folder", {"a/1.png": b""})
    (folder / "a" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "b").symlink_to(folder, target_is_directory=True)
    source = open_source(folder)
    assert [entry.id for entry in source.entries()] == ["a/1.png"]
    assert source.left_out == "left out 2 links to a folder above"


def test_an_image_that_grew_since_the_listing_is_refused(pack: Pack) -> None:
    folder = pack("folder", {"a/1.png": b"old"})
    source = open_source(folder)
    source.entries()
    (folder / "a" / "1.png").write_bytes(b"newer")
    with pytest.raises(UserError, match="5 bytes instead of 3"):
        source.read("a/1.png")


def test_a_folder_that_may_not_be_listed_is_named(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(pack("folder", {"a/1.png": b"", "b/1.png": b""}))
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if path.name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"/images/b/? cannot be listed \(Permission denied\)"):
        source.entries()
