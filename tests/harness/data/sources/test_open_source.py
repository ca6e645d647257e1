"""How the kind of a source is told by what is on disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data import sources
from harness.data.sources import open_source
from models.errors import UserError

Images = dict[str, bytes]
Pack = Callable[[str, Images], Path]
Tar = Callable[..., Path]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("folder", "FolderSource"),
        ("zip", "ZipSource"),
        ("tar", "ClassTarSource"),
        ("imagenet", "ImageNetTarSource"),
        ("webdataset", "WebDatasetSource"),
        ("parquet", "ParquetSource"),
    ],
)
def test_each_kind_is_recognised(kind: str, name: str, pack: Pack, images: Images) -> None:
    path = pack(kind, images)
    source = open_source(path)
    assert type(source).__name__ == name
    assert source.path == path


@pytest.mark.parametrize("kind", ["zip", "tar", "imagenet"])
def test_the_suffix_of_an_archive_does_not_matter(kind: str, pack: Pack, images: Images) -> None:
    path = pack(kind, images)
    renamed = path.rename(path.with_name("images"))
    assert len(open_source(renamed).entries()) == len(images)


def test_one_shard_and_one_parquet_file_may_be_named(pack: Pack, images: Images) -> None:
    shard = open_source(pack("webdataset", images) / "shard-000000.tar")
    table = open_source(pack("parquet", images) / "data" / "train-00001-of-00002.parquet")
    assert len(shard.entries()) == len(table.entries()) == len(images) // 2


def test_a_folder_with_nothing_but_one_tar_of_class_folders_is_that_tar(tar: Tar) -> None:
    path = tar("folder/images.tar", {"a/1.png": b"one"})
    assert open_source(path.parent).read("a/1.png") == b"one"


def test_shards_for_validation_are_left_out(tar: Tar, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        tar(f"shards/set-{split}-0000.tar", {"k.jpg": split.encode(), "k.cls": b"0"})
    assert [entry.id for entry in open_source(tmp_path / "shards").entries()] == [
        "set-train-0000/k"
    ]


def test_a_class_folder_tar_with_notes_is_no_shard(tar: Tar) -> None:
    path = tar("x.tar", {"meta.json": b"{}", "notes.cls": b"0", "a/1.png": b""})
    assert type(open_source(path)).__name__ == "ClassTarSource"


def test_a_zip_at_the_end_of_a_tar_does_not_make_it_a_zip(
    pack: Pack, tar: Tar, images: Images
) -> None:
    archive = pack("zip", images).read_bytes()
    path = tar("x.tar", {"a/1.png": b"", "notes.zip": archive})
    assert [entry.id for entry in open_source(path).entries()] == ["a/1.png"]


MINE = """
from harness.data.sources.base import Entry, EntryIndex, IndexedSource, Recognised, index_entries
import numpy as np

EXPECTED = "bytes of my own"

class MySource(IndexedSource):
    def __init__(self, path):
        self.path = path

    def _list(self):
        entries = [Entry("a/0", 0, 1), Entry("b/1", 1, 1)]
        return index_entries(self, ("a", "b"), entries, np.array([[0], [1]]))

    def _content(self, entry, place):
        return self.path.read_bytes()[4 + place[0] :][:1]

def recognise(path):
    mine = path.is_file() and path.read_bytes().startswith(b"mine")
    return Recognised("my file", lambda: MySource(path)) if mine else None
"""


def test_a_new_kind_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "mine.py").write_text(MINE)
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(modules)])
    monkeypatch.delitem(sys.modules, "harness.data.sources.mine", raising=False)
    (tmp_path / "images").write_bytes(b"minexy")
    source = open_source(tmp_path / "images")
    assert [source.read(entry.id) for entry in source.entries()] == [b"x", b"y"]
    (tmp_path / "images").write_bytes(b"another")
    with pytest.raises(UserError, match="another kind: expected .*; bytes of my own; "):
        open_source(tmp_path / "images")
    sys.modules.pop("harness.data.sources.mine")


def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no .*/gone: expected images as CLASS/IMAGE in"):
        open_source(tmp_path / "gone")


@pytest.mark.parametrize(
    ("compress", "name"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")]
)
def test_a_compressed_tar_is_told(tar: Tar, compress: Callable[[bytes], bytes], name: str) -> None:
    path = tar("x.tar.z", {"a/1.png": b""})
    path.write_bytes(compress(path.read_bytes()))
    with pytest.raises(UserError, match=f"compressed with {name}.*: decompress it"):
        open_source(path)


@pytest.mark.parametrize("content", [b"", b"text", bytes(range(256)) * 4])
def test_a_file_of_another_kind_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"file.bin is a file of another kind: expected"):
        open_source(path)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ((), "nothing"),
        (("a.txt",), "a.txt"),
        (("a/1.npy", "b/1.npy", "c/1.npy", "d.txt", "e.txt"), "a, b, c and 2 more"),
        ((".hidden/1.png",), ".hidden"),
    ],
)
def test_a_folder_of_other_things_tells_what_is_in_it(
    tmp_path: Path, names: tuple[str, ...], found: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    with pytest.raises(UserError, match=f"/folder holds {found}: expected images as CLASS/IMAGE"):
        open_source(folder)


def test_shards_without_labels_are_told_with_what_is_in_them(tar: Tar, tmp_path: Path) -> None:
    tar("shards/a.tar", {"k.jpg": b"", "k.cls": b"0"})
    tar("shards/b.tar", {"k.jpg": b"", "k.txt": b"caption"})
    with pytest.raises(UserError, match=r"b.tar begins with k.jpg, k.txt: expected"):
        open_source(tmp_path / "shards")


def test_a_folder_of_two_kinds_is_refused(pack: Pack, tar: Tar, images: Images) -> None:
    folder = pack("folder", images)
    tar("images/x.tar", {"a/1.png": b""})
    with pytest.raises(UserError, match=r"holds the image .* and 1 tars: name the one or the"):
        open_source(folder)


def test_a_file_that_may_not_be_read_is_told(
    pack: Pack, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack("zip", images)

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"images.zip cannot be read: .*Permission denied"):
        open_source(path)
