from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data.sources import open_source
from models.errors import UserError

Images = dict[str, bytes]
Tar = Callable[..., Path]


def outer_of(tar: Tar, inner: dict[str, Images], **others: bytes) -> Path:
    packed = {name: tar(f"inner/{name}", files).read_bytes() for name, files in inner.items()}
    return tar("ILSVRC2012_img_train.tar", {**packed, **others})


def test_images_are_read_where_they_stand(tar: Tar) -> None:
    path = outer_of(
        tar,
        {
            "n02.tar": {"n02_7.JPEG": b"seven", "n02_10.JPEG": b"ten"},
            "n01.tar": {"./n01_1.JPEG": b"one", "._n01_1.JPEG": b"of macOS"},
        },
        README=b"about",
    )
    source = open_source(path)
    assert source.class_ids == ("n01", "n02")
    assert {entry.id: source.read(entry.id) for entry in source.entries()} == {
        "n01/n01_1.JPEG": b"one",
        "n02/n02_10.JPEG": b"ten",
        "n02/n02_7.JPEG": b"seven",
    }
    content = path.read_bytes()
    assert content.count(b"seven") == 1, "the archive is not compressed"


def test_a_class_without_images_is_named(tar: Tar) -> None:
    path = outer_of(tar, {"n01.tar": {"n01_1.JPEG": b"1"}, "n02.tar": {"list.txt": b""}})
    with pytest.raises(UserError, match="class n02 holds no image"):
        open_source(path).entries()


def test_a_damaged_inner_tar_is_named(tar: Tar) -> None:
    path = outer_of(tar, {"n01.tar": {"n01_1.JPEG": b"1"}, "n02.tar": {"n02_1.JPEG": b"2"}})
    content = bytearray(path.read_bytes())
    content[content.index(b"n02_1.JPEG")] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"n02.tar in .*img_train.tar is no tar, or is damaged"):
        open_source(path).entries()


def test_two_inner_tars_of_one_class_must_not_hold_one_name(tar: Tar) -> None:
    path = outer_of(tar, {"n01.tar": {"1.JPEG": b"1"}, "more/n01.tar": {"1.JPEG": b"2"}})
    with pytest.raises(UserError, match=r"holds n01/1.JPEG 2 times"):
        open_source(path).entries()
