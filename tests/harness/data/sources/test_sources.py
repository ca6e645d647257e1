"""What every kind of source has to do, on the same images, and how its kind is recognised."""

from __future__ import annotations

import bz2
import gzip
import lzma
import multiprocessing
import pickle
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.data import sources
from harness.data.sources import Source, open_source
from models.errors import UserError

Images = dict[str, bytes]


Pack = Callable[[str, Images], Path]


BY_CLASS_FOLDERS = ("folder", "zip", "tar", "imagenet")


KINDS = (*BY_CLASS_FOLDERS, "webdataset", "parquet")


CLASSES = ("n01440764", "n01443537", "n02102040")


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, pack: Pack, images: Images) -> Source:
    return open_source(pack(request.param, images))


def contents(source: Source) -> set[tuple[str, bytes]]:
    """Class and bytes of all images."""
    return {(source.class_ids[e.label], source.read(e.id)) for e in source.entries()}


def test_the_images_and_classes_are_those_that_were_packed(source: Source, images: Images) -> None:
    assert source.class_ids == CLASSES
    assert contents(source) == {(name.partition("/")[0], data) for name, data in images.items()}
    assert len(source.entries()) == len(images)


@pytest.mark.parametrize("kind", BY_CLASS_FOLDERS)
def test_an_image_in_class_folders_has_one_id_whatever_they_are_packed_in(
    kind: str, pack: Pack, images: Images
) -> None:
    source = open_source(pack(kind, images))
    assert {entry.id: source.read(entry.id) for entry in source.entries()} == images


@pytest.mark.parametrize(
    ("kind", "first"),
    [("webdataset", "shard-000000/0000"), ("parquet", "train-00000-of-00002.parquet#")],
)
def test_an_image_elsewhere_is_named_after_its_file(
    kind: str, first: str, pack: Pack, images: Images
) -> None:
    ids = [entry.id for entry in open_source(pack(kind, images)).entries()]
    assert min(ids).startswith(first)


def test_entries_are_sorted_and_tell_the_sizes(source: Source) -> None:
    entries = list(source.entries())
    assert entries == sorted(entries, key=lambda entry: (entry.label, entry.id))
    assert [entry.size for entry in entries] == [len(source.read(e.id)) for e in entries]


@pytest.mark.parametrize("listed", [False, True])
def test_a_pickled_source_reads_the_same(source: Source, listed: bool) -> None:
    if listed:
        expected = contents(source)
    copy = pickle.loads(pickle.dumps(source))
    if not listed:
        expected = contents(source)
    assert contents(copy) == expected
    assert copy.path == source.path


def inherit(source: Source) -> None:
    """The fork's initial arguments are inherited; those of its work are pickled."""
    global inherited
    inherited = source


def read_inherited(entry_id: str) -> bytes:
    return inherited.read(entry_id)


@pytest.mark.parametrize("listed", [False, True])
def test_forked_processes_read_at_once(source: Source, images: Images, listed: bool) -> None:
    ids = [entry.id for entry in pickle.loads(pickle.dumps(source)).entries()] * 20
    if listed:
        source.read(ids[0])
    fork = multiprocessing.get_context("fork")
    with fork.Pool(2, initializer=inherit, initargs=(source,)) as pool:
        found = pool.map(read_inherited, ids, chunksize=3)
    assert found == [source.read(entry_id) for entry_id in ids]


def test_threads_read_at_once(source: Source) -> None:
    ids = [entry.id for entry in source.entries()] * 20
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(source.read, ids)) == [source.read(entry_id) for entry_id in ids]


@pytest.mark.parametrize("name", ["gone", "n01440764/gone.JPEG", "../images.zip", "/etc/hosts", ""])
def test_an_unknown_id_is_a_key_error(source: Source, name: str) -> None:
    with pytest.raises(KeyError):
        source.read(name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_that_was_shortened_since_the_listing_is_a_user_error(
    kind: str, pack: Pack, images: Images
) -> None:
    source = open_source(pack(kind, images))
    entry = source.entries()[-1]
    for file in [path for path in source.path.parent.rglob("*") if path.is_file()]:
        file.write_bytes(file.read_bytes()[: entry.size // 2])
    with pytest.raises(UserError, match="cannot be read") as caught:
        source.read(entry.id)
    assert entry.id in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_that_was_removed_since_the_listing_is_a_user_error(
    kind: str, pack: Pack, images: Images
) -> None:
    source = open_source(pack(kind, images))
    entry = source.entries()[0]
    for file in [path for path in source.path.parent.rglob("*") if path.is_file()]:
        file.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        source.read(entry.id)


@pytest.mark.parametrize("kind", ["zip", "tar", "imagenet", "webdataset", "parquet"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.97])
def test_a_truncated_file_is_named(kind: str, kept: float, pack: Pack, images: Images) -> None:
    path = pack(kind, images)
    files = sorted(path.rglob("*.*")) if path.is_dir() else [path]
    last = next(file for file in reversed(files) if file.suffix != ".txt")
    content = last.read_bytes()
    # Python pads a tar with 10 KB of zeros, of which the first block alone means something.
    end = len(content.rstrip(b"\0")) if last.suffix == ".tar" else len(content)
    last.write_bytes(content[: int(end * kept)])
    with pytest.raises(UserError) as caught:
        open_source(path).entries()
    assert str(last) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_above_the_limit_is_refused_unread(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = source.entries()[0]
    monkeypatch.setattr("harness.data.sources.base.LARGEST_FILE", entry.size - 1)
    with pytest.raises(UserError, match=f"{entry.size} bytes, more than {entry.size - 1}"):
        source.read(entry.id)


def test_real_images_are_read_as_they_are_in_their_zip(shared_data: Path) -> None:
    path = shared_data / "imagenet-sample.zip"
    source = open_source(path)
    with zipfile.ZipFile(path) as archive:
        expected = {name.removeprefix("train/"): archive.read(name) for name in archive.namelist()}
    assert {entry.id: source.read(entry.id) for entry in source.entries()} == expected
    assert source.class_ids[:2] == ("n01440764", "n01530575")
    assert len(source.class_ids) == 106


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
from harness.data.sources.base import Entry, Recognised, Source, index_entries

EXPECTED = "bytes of my own"

class MySource(Source):
    def _list(self):
        entries = [Entry("a/0", 0, 1), Entry("b/1", 1, 1)]
        return index_entries(self, ("a", "b"), entries, [(0,), (1,)])

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


def test_a_folder_of_images_that_are_not_read_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.HEIC").touch()
    with pytest.raises(UserError, match=r"convert to PNG.*\.heic 1"):
        open_source(tmp_path)


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
