from __future__ import annotations

import os
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data.sources import open_source
from models.errors import UserError

Images = dict[str, bytes]
NOISE = os.urandom(1000)


@pytest.fixture
def archive(tmp_path: Path) -> Callable[[int], Path]:
    """`archive(method)`: a zip with one image."""

    def build(method: int) -> Path:
        path = tmp_path / "images.zip"
        with zipfile.ZipFile(path, "w", method) as file:
            file.writestr("a/1.png", NOISE)
        return path

    return build


def patched(path: Path, at: int, change: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[at : at + len(change)] = change
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_stored_and_deflated_images_are_read(archive: Callable[[int], Path], method: int) -> None:
    assert open_source(archive(method)).read("a/1.png") == NOISE


def test_a_zip_behind_other_data_is_read(archive: Callable[[int], Path]) -> None:
    path = archive(zipfile.ZIP_DEFLATED)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    assert open_source(path).read("a/1.png") == NOISE


def test_an_image_written_to_a_stream_is_read(tmp_path: Path) -> None:
    # Its size then stands behind it and not before.
    path = tmp_path / "stream.zip"
    with path.open("wb") as target, zipfile.ZipFile(Unseekable(target), "w") as file:
        file.writestr("a/1.png", NOISE, zipfile.ZIP_DEFLATED)
    assert open_source(path).read("a/1.png") == NOISE


class Unseekable:
    def __init__(self, target) -> None:
        self.write, self.flush = target.write, target.flush


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_are_refused_by_number(archive: Callable[[int], Path], method: int) -> None:
    with pytest.raises(UserError, match=f"packed by method {method}, neither stored nor"):
        open_source(archive(method)).read("a/1.png")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_changed_byte_is_found(archive: Callable[[int], Path], method: int) -> None:
    path = archive(method)
    with pytest.raises(UserError, match=r"a/1.png in .*images.zip cannot be read"):
        open_source(patched(path, 400, os.urandom(20))).read("a/1.png")


def test_an_encrypted_image_is_refused(archive: Callable[[int], Path]) -> None:
    path = archive(zipfile.ZIP_STORED)
    entry = path.read_bytes().index(b"PK\x01\x02")
    with pytest.raises(UserError, match="encrypted"):
        open_source(patched(path, entry + 8, b"\x01")).read("a/1.png")


def test_a_directory_that_points_elsewhere_is_refused(archive: Callable[[int], Path]) -> None:
    path = archive(zipfile.ZIP_STORED)
    with pytest.raises(UserError, match="no file where the zip's directory says"):
        open_source(patched(path, 0, b"junk")).read("a/1.png")


def test_an_image_that_unpacks_to_more_than_it_claims_is_never_unpacked_whole(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/1.png", bytes(10 * 2**20))
    entry = path.read_bytes().index(b"PK\x01\x02")
    source = open_source(patched(path, entry + 24, (100).to_bytes(4, "little")))
    source.entries()
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="another checksum"):
            source.read("a/1.png")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_damaged_directory_is_a_user_error(archive: Callable[[int], Path]) -> None:
    path = archive(zipfile.ZIP_STORED)
    entry = path.read_bytes().index(b"PK\x01\x02")
    with pytest.raises(UserError, match=r"images.zip is no zip, or is damaged or cut off"):
        open_source(patched(path, entry, b"junk")).entries()
