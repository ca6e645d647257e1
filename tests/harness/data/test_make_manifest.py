"""Images that are chosen and cannot be used."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from harness.data.manifest import LeftOut, Manifest, ManifestClass
from harness.data.sources import open_source
from harness.processes.progress import Progress
from models.errors import UserError
from tests.support.stand_ins.memory_source import MemorySource, by_hash, make, picture, pictures


def ids(manifest: Manifest) -> list[str]:
    return [image.id for image in manifest.images]


def test_everything_is_taken_unless_asked_otherwise() -> None:
    files = pictures()
    manifest = make(MemorySource(files), names={"c1": "one"})
    assert (manifest.name, manifest.seed, manifest.per_class) == ("test/v1", None, None)
    assert manifest.classes == (
        ManifestClass("c0", "c0"),
        ManifestClass("c1", "one"),
        ManifestClass("c2", "c2"),
    )
    found = [(item.id, item.label, item.size, item.sha256) for item in manifest.images]
    assert found == [
        (entry, int(entry[1]), len(content), hashlib.sha256(content).hexdigest())
        for entry, content in sorted(files.items())
    ]
    assert manifest.left_out == ()


def test_labels_follow_the_list_of_classes() -> None:
    manifest = make(MemorySource(pictures()), class_ids=["c2", "c0"])
    assert [item.id for item in manifest.classes] == ["c2", "c0"]
    assert ids(manifest)[0] == "c2/i0.png"
    assert [image.label for image in manifest.images] == [0] * 4 + [1] * 4


def test_classes_and_images_are_drawn_by_their_documented_rank() -> None:
    source = MemorySource(pictures(classes=6, images=5))
    manifest = make(source, classes=3, per_class=2, seed=7)
    drawn = by_hash(7, [f"c{label}" for label in range(6)])[:3]
    assert [item.id for item in manifest.classes] == sorted(drawn)
    for item in drawn:
        of_class = [entry for entry in ids(manifest) if entry.startswith(item)]
        names = [f"{item}/i{number}.png" for number in range(5)]
        assert of_class == sorted(by_hash(7, names)[:2])
    assert (manifest.seed, manifest.per_class) == (7, 2)


def test_a_larger_draw_keeps_the_smaller_one() -> None:
    source = MemorySource(pictures(classes=6, images=5))
    before: set[str] = set()
    for classes, per_class in ((2, 2), (3, 2), (3, 4), (6, 5)):
        drawn = {*ids(make(source, classes=classes, per_class=per_class, seed=1))}
        assert before < drawn
        assert len(drawn) == classes * per_class
        before = drawn


def test_another_seed_draws_others() -> None:
    source = MemorySource(pictures(classes=2, images=8))
    draws = {tuple(ids(make(source, per_class=4, seed=seed))) for seed in range(5)}
    assert len(draws) > 1


def test_the_same_draw_gives_the_same_manifest_whatever_the_order_of_files() -> None:
    files = pictures()
    turned = dict(reversed(files.items()))
    first = make(MemorySource(files), classes=2, per_class=2)
    assert make(MemorySource(turned), classes=2, per_class=2).hash == first.hash


def test_several_processes_give_the_same_manifest(class_folders: Callable[..., Path]) -> None:
    folder = class_folders("cat", "dog", images=6, side=8)
    (folder / "dog" / "0001.png").write_bytes(b"no image")
    seen: list[Progress] = []
    alone = make(open_source(folder), on_progress=seen.append)
    assert make(open_source(folder), processes=2) == alone
    assert len(alone.left_out) == 1
    assert [progress.done for progress in seen] == [*range(1, 13)]
    assert {progress.total for progress in seen} == {12}


def test_a_class_that_is_not_there_is_told_with_the_nearest() -> None:
    source = MemorySource({"n0144/a": picture(), "n0145/a": picture(), "other/a": picture()})
    with pytest.raises(UserError) as caught:
        make(source, class_ids=["n0145", "n0143", "n0999"])
    text = str(caught.value)
    assert "has no class n0143, and 1 more of those asked for" in text
    assert "it has 3 classes, the nearest n014" in text


def test_more_classes_than_there_are_is_told() -> None:
    with pytest.raises(UserError, match="has 3 classes, but 4 are asked for"):
        make(MemorySource(pictures()), classes=4)


def test_more_images_than_there_are_is_told_before_any_is_read() -> None:
    source = MemorySource(pictures(), unread=[*pictures()])
    with pytest.raises(UserError, match="class c0 has 4 images, but 5 are asked for"):
        make(source, per_class=5)


def test_folder_and_zip_of_the_same_images_give_the_same_manifest(
    class_folders: Callable[..., Path], tmp_path: Path
) -> None:
    folder = class_folders("cat", "dog", images=3)
    (folder / "dog" / "0001.png").write_bytes(b"no image")
    packed = tmp_path / "images.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(folder.rglob("*.png"), reverse=True):
            archive.write(path, path.relative_to(folder))
    first = make(open_source(folder))
    assert len(first.images) == 5
    assert make(open_source(packed)).hash == first.hash


def test_real_images_are_hashed_as_they_are_stored(shared_data: Path) -> None:
    path = shared_data / "imagenet-sample.zip"
    manifest = make(open_source(path), classes=5, per_class=1)
    with zipfile.ZipFile(path) as archive:
        stored = {
            hashlib.sha256(archive.read(name)).hexdigest(): name for name in archive.namelist()
        }
    assert len(manifest.images) == 5
    for image in manifest.images:
        assert stored[image.sha256].endswith(image.id)
        assert manifest.classes[image.label].id in image.id
    assert manifest.left_out == ()


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
