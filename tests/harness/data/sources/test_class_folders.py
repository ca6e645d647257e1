"""Where the classes are in folders, zips and tars alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data.sources import open_source
from models.errors import UserError

Images = dict[str, bytes]
Pack = Callable[[str, Images], Path]


@pytest.fixture(params=["folder", "zip", "tar"])
def packed(request: pytest.FixtureRequest, pack: Pack) -> Callable[..., Path]:
    """`packed("a/1.png", "a/2.png")`: files of that name, whose content is their name."""
    return lambda *names: pack(request.param, {name: name.encode() for name in names})


def ids(path: Path) -> list[str]:
    return [entry.id for entry in open_source(path).entries()]


@pytest.mark.parametrize("around", ["", "train/", "ILSVRC/Data/train/"])
def test_wrapping_folders_are_no_part_of_an_id(packed: Callable[..., Path], around: str) -> None:
    source = open_source(packed(*(around + name for name in ("b/2.png", "a/1.jpg", "b/1.png"))))
    assert source.class_ids == ("a", "b")
    assert [(entry.id, entry.label) for entry in source.entries()] == [
        ("a/1.jpg", 0),
        ("b/1.png", 1),
        ("b/2.png", 1),
    ]
    assert source.read("a/1.jpg") == f"{around}a/1.jpg".encode()


def test_a_single_class_is_no_wrapping_folder(packed: Callable[..., Path]) -> None:
    assert ids(packed("train/only/1.png", "train/only/2.png")) == ["only/1.png", "only/2.png"]


def test_classes_are_sorted_by_name_even_where_one_begins_like_another(
    packed: Callable[..., Path],
) -> None:
    # "a-b/" stands before "a/" where whole ids are sorted.
    assert ids(packed("a-b/1.png", "a/1.png")) == ["a/1.png", "a-b/1.png"]


def test_numbered_classes_are_sorted_by_number(packed: Callable[..., Path]) -> None:
    names = [f"{number}/1.png" for number in range(12)]
    assert open_source(packed(*names)).class_ids == tuple(str(number) for number in range(12))


def test_other_files_and_hidden_ones_are_left_out_and_counted(packed: Callable[..., Path]) -> None:
    hidden = (".git/a.png", "a/.hidden.png", "a/._1.png", "__MACOSX/a/1.png", ".cache/x/1.png")
    source = open_source(packed("a/1.PNG", "a/1.txt", "README.md", "a/noise", "a/2.HEIC", *hidden))
    assert [entry.id for entry in source.entries()] == ["a/1.PNG"]
    assert source.left_out == (
        "left out 1 image to convert to PNG, as they are not read here (.heic 1), "
        "3 files of no image format (no suffix 1, .md 1, .txt 1), 5 hidden files or folders"
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("0.png", "a/1.png"), "expected images as CLASS/IMAGE, but found 0.png"),
        (("a/0.png", "a/b/1.png"), "expected images as CLASS/IMAGE, but found a/b/1.png"),
        (("x/a/0.png", "y/a/1.png", "y/2.png"), "but found x/a/0.png"),
    ],
)
def test_images_outside_class_folders_are_refused(
    packed: Callable[..., Path], names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        ids(packed(*names))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_without_images_tells_what_is_in_it(kind: str, pack: Pack) -> None:
    names = [f"a/{number}.txt" for number in range(5)]
    with pytest.raises(UserError, match=r"holds no image: .* found a/0.txt, .* and 2 more"):
        ids(pack(kind, dict.fromkeys(names, b"")))


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("again", ["a/1.png", "./a/1.png", "a//1.png"])
def test_an_image_that_is_there_twice_is_refused(
    kind: str, again: str, tmp_path: Path, write_twice: Callable[..., Path]
) -> None:
    path = write_twice(kind, ("a/1.png", "a/2.png", again))
    with pytest.raises(UserError, match=r"holds a/1.png 2 times"):
        ids(path)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_class_without_images_is_named(kind: str, with_folders: Callable[..., Path]) -> None:
    path = with_folders(kind, ("train/a/1.png", "train/b/1.txt"), ("train/b", "train/c", "val"))
    with pytest.raises(UserError, match="class b holds no image, and 1 more classes"):
        ids(path)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_other_empty_folders_do_not_matter(kind: str, with_folders: Callable[..., Path]) -> None:
    path = with_folders(kind, ("train/a/1.png",), ("train/.cache", "train/a/old", "val", "val/a"))
    assert ids(path) == ["a/1.png"]


def test_a_name_that_is_no_text_is_refused(tar: Callable[..., Path]) -> None:
    path = tar("x.tar", {"a/\udcff.png": b"", "a/\N{LATIN SMALL LETTER E WITH ACUTE}.png": b""})
    with pytest.raises(UserError, match=r"'a/\\udcff.png' is not valid UTF-8"):
        ids(path)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_file_without_a_name_is_passed_over(kind: str, write_twice: Callable[..., Path]) -> None:
    assert ids(write_twice(kind, ("a/1.png", ".", "/a/2.png"))) == ["a/1.png", "a/2.png"]


def test_names_in_other_scripts_are_kept(packed: Callable[..., Path]) -> None:
    assert ids(packed("猫/é 1.png")) == ["猫/é 1.png"]
