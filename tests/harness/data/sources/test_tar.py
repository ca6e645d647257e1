from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data.sources import open_source
from harness.data.sources.tar import is_tar, tar_members
from models.errors import UserError

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


SIZES = (0, 1, 511, 512, 513, 5000)


LONG = "folder/" + "x" * 90 + "/" + "y" * 95


BEYOND_USTAR = "/".join(["very" * 20] * 8)


def archive_of(path: Path, form: int, names: tuple[str, ...]) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, size in zip(names, SIZES, strict=True):
            member = tarfile.TarInfo(name)
            member.size = size
            member.mtime = 1234567890.5 if form == tarfile.PAX_FORMAT else 0
            archive.addfile(member, io.BytesIO(os.urandom(size)))
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return archive_of(tmp_path / "plain.tar", tarfile.GNU_FORMAT, tuple("abcdef"))


@pytest.mark.parametrize("form", FORMATS)
def test_members_are_those_of_tarfile(tmp_path: Path, form: int) -> None:
    last = "e.png" if form == tarfile.USTAR_FORMAT else BEYOND_USTAR
    names = ("a.png", "./b.png", LONG, "folder/d", last, "é" * 40)
    path = archive_of(tmp_path / "x.tar", form, names)
    with tarfile.open(path) as archive:
        theirs = [
            (member.name, member.offset_data, member.size, member.isdir())
            for member in archive.getmembers()
        ]
    assert [tuple(member) for member in tar_members(path)] == theirs
    assert len(theirs) == len(names) + 1


def test_a_tar_within_a_file_is_found_by_its_offset(tmp_path: Path, plain: Path) -> None:
    content = plain.read_bytes()
    outer = tmp_path / "outer"
    outer.write_bytes(b"before" + content + b"behind")
    inner = list(tar_members(outer, 6, len(content)))
    assert inner == [member._replace(offset=member.offset + 6) for member in tar_members(plain)]


def test_sizes_that_octal_digits_cannot_hold_are_read(tmp_path: Path) -> None:
    member = tarfile.TarInfo("huge.png")
    member.size = 9 * 2**30
    path = tmp_path / "huge.tar"
    with path.open("wb") as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        # A hole: the file takes no room on disk.
        file.truncate(512 + member.size + 1024)
    assert [found.size for found in tar_members(path)] == [9 * 2**30]


def test_every_cut_but_in_the_padding_behind_the_end_is_found(tmp_path: Path, plain: Path) -> None:
    content = plain.read_bytes()
    last = list(tar_members(plain))[-1]
    mark = last.offset + -(-last.size // 512) * 512
    cut = tmp_path / "cut.tar"
    for length in [*range(0, mark, 256), mark, mark + 511]:
        cut.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"cut.tar is cut off"):
            list(tar_members(cut))
    cut.write_bytes(content[: mark + 512])
    assert len(list(tar_members(cut))) == len(SIZES) + 1


def test_a_cut_tar_within_another_does_not_go_on_into_what_follows(
    tmp_path: Path, plain: Path
) -> None:
    content = plain.read_bytes()
    last = list(tar_members(plain))[-1]
    mark = last.offset + -(-last.size // 512) * 512
    outer = tmp_path / "outer.tar"
    outer.write_bytes(content[:mark] + content)
    with pytest.raises(UserError, match=r"inner.tar in .*outer.tar is cut off"):
        list(tar_members(outer, 0, mark, "inner.tar"))
    with pytest.raises(UserError, match=r"inner.tar in .*outer.tar is cut off"):
        list(tar_members(outer, 0, outer.stat().st_size + 1, "inner.tar"))


def test_a_damaged_header_is_no_end(tmp_path: Path, plain: Path) -> None:
    third = list(tar_members(plain))[2].offset - 512
    content = bytearray(plain.read_bytes())
    content[third + 10] ^= 1
    path = tmp_path / "damaged.tar"
    path.write_bytes(content)
    with tarfile.open(path) as archive:
        assert len(archive.getmembers()) == 2, "tarfile does not notice"
    with pytest.raises(UserError, match=f"damaged at byte {third}"):
        list(tar_members(path))


@pytest.mark.parametrize("size", [b"-0000000001\0", b"00000000009\0", b"zzzzzzzzzzz\0"])
def test_a_size_that_is_no_number_is_damage(tmp_path: Path, size: bytes) -> None:
    block = bytearray(tarfile.TarInfo("a.png").tobuf())
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    path = tmp_path / "x.tar"
    path.write_bytes(bytes(block) + bytes(1024))
    with pytest.raises(UserError, match="damaged at byte 0"):
        list(tar_members(path))


def header_of_next(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    """A header that describes the following one, and its content."""
    member = tarfile.TarInfo("next")
    member.type, member.size = kind, len(content) if size is None else size
    return member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


@pytest.mark.parametrize(
    "before",
    [
        header_of_next(tarfile.XHDTYPE, b"19 size=99999999999\n"),
        header_of_next(tarfile.XHDTYPE, b"14 size=-1024\n"),
        header_of_next(tarfile.XHDTYPE, b"0 size=3\n"),
        header_of_next(tarfile.XHDTYPE, b"25 GNU.sparse.map=1,2,x\n"),
        header_of_next(tarfile.XHDTYPE, b"18 hdrcharset=\xff\xff\n"),
        header_of_next(tarfile.XHDTYPE, b"", 2**40),
        header_of_next(tarfile.GNUTYPE_LONGNAME, b"", 2**33),
        header_of_next(tarfile.GNUTYPE_LONGNAME, b"x") * 3000,
        header_of_next(tarfile.XHDTYPE, b"6 a=b\n") * 3000,
    ],
    ids=["size", "negative", "length 0", "sparse", "charset", "1 TiB", "8 GiB", "names", "nested"],
)
def test_a_header_that_makes_no_sense_is_damage(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(before + tarfile.TarInfo("a/1.png").tobuf() + bytes(1024))
    with pytest.raises(UserError, match=r"x\.tar( is|: a/1\.png is a link or a sparse)"):
        list(tar_members(path))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.GNUTYPE_SPARSE])
def test_links_and_sparse_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("a/1.png")
    member.type, member.linkname = kind, "a/0.png"
    path = tmp_path / "x.tar"
    path.write_bytes(member.tobuf() + bytes(1024))
    with pytest.raises(UserError, match=r"a/1.png is a link or a sparse file: .*--dereference"):
        list(tar_members(path))


def test_devices_and_pipes_are_passed_over(tmp_path: Path) -> None:
    pipe = tarfile.TarInfo("pipe")
    pipe.type = tarfile.FIFOTYPE
    path = tmp_path / "x.tar"
    path.write_bytes(pipe.tobuf() + tarfile.TarInfo("a.png").tobuf() + bytes(1024))
    assert [member.name for member in tar_members(path)] == ["a.png"]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: tarfile.TarInfo("a").tobuf(), True),
        (lambda: bytes(512), True),
        (lambda: os.urandom(512), False),
        (lambda: b"\x89PNG" + bytes(508), False),
        (lambda: bytes(511), False),
    ],
)
def test_a_tar_is_told_by_its_first_block(make: Callable[[], bytes], expected: bool) -> None:
    assert is_tar(make()) is expected


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
