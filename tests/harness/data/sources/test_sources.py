"""What every kind of source has to do, on the same images."""

from __future__ import annotations

import multiprocessing
import pickle
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

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
