"""Images that are chosen and cannot be used."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from harness.data.manifest import LeftOut
from harness.data.sources import open_source
from models.errors import UserError
from tests.support.stand_ins.memory_source import MemorySource, by_hash, make, picture, pictures


def truncated() -> bytes:
    """A JPEG whose second half is missing."""
    file = io.BytesIO()
    Image.open(io.BytesIO(picture(64, 64))).save(file, "JPEG", quality=95)
    return file.getvalue()[: len(file.getvalue()) // 2]


@pytest.mark.parametrize("content", [b"", b"no image", truncated(), picture()[:100]])
def test_an_image_that_cannot_be_decoded_is_left_out_with_its_reason(content: bytes) -> None:
    files = {**pictures(), "c1/i1.png": content}
    manifest = make(MemorySource(files))
    assert [image.id for image in manifest.images] == sorted({*files} - {"c1/i1.png"})
    ((left_out),) = manifest.left_out
    assert left_out.id == "c1/i1.png"
    assert left_out.reason
    assert len(left_out.reason.splitlines()) == 1
    # An address in memory would make each manifest another one.
    assert "0x" not in left_out.reason
    assert make(MemorySource(files)).hash == manifest.hash


def test_an_image_that_is_damaged_where_it_is_packed_is_left_out() -> None:
    manifest = make(MemorySource(pictures(), damaged=["c0/i3.png"]))
    assert manifest.left_out == (LeftOut("c0/i3.png", "damaged where it is packed"),)
    assert len(manifest.images) == 11


def test_a_left_out_image_is_replaced_by_the_next_of_the_draw() -> None:
    rank = by_hash(0, [f"c1/i{number}.png" for number in range(6)])
    files = {**pictures(images=6), rank[0]: b"bad", rank[2]: b"bad", rank[5]: b"bad"}
    manifest = make(MemorySource(files), per_class=2)
    drawn = [image.id for image in manifest.images if image.label == 1]
    assert drawn == sorted([rank[1], rank[3]])
    assert len(manifest.images) == 6
    # The one that was never needed is not named.
    assert [item.id for item in manifest.left_out] == sorted([rank[0], rank[2]])


def test_strict_refuses_and_lists_the_first_five() -> None:
    files = {**pictures(), **{f"c{label}/i1.png": b"bad" for label in range(3)}}
    with pytest.raises(UserError, match=r"3 of 12 images cannot be read: c0/i1.png \(.*without"):
        make(MemorySource(files), strict=True)
    files.update({f"c0/i{number}.png": b"bad" for number in range(4)}, **{"c1/i0.png": b"bad"})
    with pytest.raises(UserError) as caught:
        make(MemorySource(files), strict=True)
    text = str(caught.value)
    assert "7 of 12 images cannot be read" in text
    assert [f"c0/i{number}.png" in text for number in range(4)] == [True] * 4
    assert "c1/i0.png" in text
    assert "c1/i1.png" not in text
    assert "and 2 more" in text


def test_strict_takes_what_can_be_read() -> None:
    assert make(MemorySource(pictures()), strict=True) == make(MemorySource(pictures()))


def test_too_few_images_that_can_be_read_is_told() -> None:
    source = MemorySource({**pictures(), "c1/i2.png": b"bad"})
    problem = r"class c1 has 3 images and 1 that cannot be read, c1/i2.png \(.+\), but 4 are asked"
    with pytest.raises(UserError, match=problem):
        make(source, per_class=4)


def test_a_class_without_an_image_that_can_be_read_is_told() -> None:
    source = MemorySource(pictures(), damaged=[f"c2/i{number}.png" for number in range(4)])
    with pytest.raises(UserError, match="class c2 has 0 images and 4 that cannot be read"):
        make(source)


def test_an_image_that_changes_under_way_is_told() -> None:
    class Growing(MemorySource):
        def read(self, entry_id: str) -> bytes:
            return super().read(entry_id) + b"more"

    with pytest.raises(UserError, match=r"c0/i0.png had \d+ bytes and then \d+: repeat"):
        make(Growing(pictures()))


def test_a_disk_that_fails_is_no_reason_to_leave_an_image_out() -> None:
    class Unplugged(MemorySource):
        def read(self, entry_id: str) -> bytes:
            raise UserError(f"{entry_id} cannot be read (I/O error)") from OSError("I/O error")

    with pytest.raises(UserError, match=r"c0/i0.png cannot be read \(I/O error\)"):
        make(Unplugged(pictures()))


def test_a_zip_with_a_damaged_file_gives_all_others(
    class_folders: Callable[..., Path], tmp_path: Path
) -> None:
    folder = class_folders("cat", "dog", images=3)
    packed = tmp_path / "images.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in folder.rglob("*.png"):
            archive.write(path, path.relative_to(folder))
    damaged = (folder / "dog" / "0001.png").read_bytes()
    content = packed.read_bytes()
    assert content.count(damaged) == 1
    packed.write_bytes(content.replace(damaged, damaged[::-1]))
    manifest = make(open_source(packed))
    assert manifest.left_out == (LeftOut("dog/0001.png", "damaged where it is packed"),)
    (folder / "dog" / "0001.png").unlink()
    assert manifest.images == make(open_source(folder)).images
