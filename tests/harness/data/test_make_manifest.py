from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data.manifest import Manifest, ManifestClass
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


def test_a_class_that_is_asked_for_twice_is_told() -> None:
    with pytest.raises(UserError, match="class c1 is asked for twice"):
        make(MemorySource(pictures()), class_ids=["c0", "c1", "c1"])


@pytest.mark.parametrize("classes", [4, 0, -1])
def test_more_classes_than_there_are_is_told(classes: int) -> None:
    with pytest.raises(UserError, match=f"has 3 classes, but {classes} are asked for"):
        make(MemorySource(pictures()), classes=classes)


@pytest.mark.parametrize("per_class", [5, 0, -1])
def test_more_images_than_there_are_is_told_before_any_is_read(per_class: int) -> None:
    source = MemorySource(pictures(), unread=[*pictures()])
    with pytest.raises(UserError, match=f"class c0 has 4 images, but {per_class} are asked for"):
        make(source, per_class=per_class)


@pytest.mark.parametrize("change", [{"classes": 2}, {"per_class": 2}])
def test_a_draw_needs_a_seed(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="a draw needs a seed"):
        make(MemorySource(pictures()), seed=None, **change)


def test_classes_are_either_given_or_drawn() -> None:
    with pytest.raises(ValueError, match="either given or drawn"):
        make(MemorySource(pictures()), class_ids=["c0"], classes=1)


def test_no_process_at_all_is_told() -> None:
    with pytest.raises(UserError, match="--processes is 0"):
        make(MemorySource(pictures()), processes=0)


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
