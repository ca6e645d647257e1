from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import pytest
from timm.data import ImageNetInfo

import harness.data.class_lists
from harness.data.class_lists import class_list_names, read_class_file, read_class_list
from harness.data.manifest import ManifestClass
from harness.machine.environment import ROOT
from models.errors import UserError


@pytest.fixture(scope="module")
def imagenet() -> dict[str, str]:
    """Names by WordNet id, from another library."""
    info = ImageNetInfo("imagenet-1k")
    count = info.num_classes()
    return {info.index_to_label_name(i): info.index_to_description(i) for i in range(count)}


def test_the_lists_are_known_by_name_and_version() -> None:
    assert class_list_names() == ("imagenet-1k/v1", "sub-in-10/v1", "sub-in-100/v1")


@pytest.mark.parametrize("count", [10, 100])
def test_sub_in_is_the_first_of_imagenets_ids_by_their_hash(
    count: int, imagenet: dict[str, str]
) -> None:
    by_hash = {hashlib.sha256(f"sub-in/v1:{item}".encode()).hexdigest(): item for item in imagenet}
    assert len(by_hash) == 1000
    chosen = sorted(by_hash[digest] for digest in sorted(by_hash)[:count])
    expected = tuple(ManifestClass(item, imagenet[item]) for item in chosen)
    assert read_class_list(f"sub-in-{count}/v1") == expected


def test_imagenet_has_its_usual_labels(imagenet: dict[str, str]) -> None:
    expected = tuple(ManifestClass(item, name) for item, name in imagenet.items())
    assert read_class_list("imagenet-1k/v1") == expected


def test_the_small_list_is_part_of_the_large_one() -> None:
    assert {*read_class_list("sub-in-10/v1")} < {*read_class_list("sub-in-100/v1")}


def test_the_files_say_how_they_were_made() -> None:
    folder = Path(harness.data.class_lists.__file__).parent
    text = (folder / "sub-in-100-v1.txt").read_text()
    assert "SHA-256 (in hex) of the text `sub-in/v1:ID`" in text


def test_the_files_are_packaged() -> None:
    folder = Path(harness.data.class_lists.__file__).parent
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (pattern,) = project["tool"]["setuptools"]["package-data"]["harness.data.class_lists"]
    assert len([*folder.glob(pattern)]) == len(class_list_names())
    assert {path.suffix for path in folder.iterdir() if path.is_file()} <= {".py", ".txt"}


def test_an_unknown_list_is_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no class list sub-in-100; .*did you mean sub-in-100/v1"):
        read_class_list("sub-in-100")
    with pytest.raises(UserError, match="no class list ../secret; choose from imagenet-1k/v1"):
        read_class_list("../secret")


def test_a_users_list_keeps_its_order(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeff# mine\r\nzebra\tthe z\u00e9bra\r\n\r\n  ape  \nbig cat\t\n".encode())
    assert read_class_file(path) == (
        ManifestClass("zebra", "the z\u00e9bra"),
        ManifestClass("ape", "ape"),
        ManifestClass("big cat", "big cat"),
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "names no class"),
        (b"# nothing\n\n", "names no class"),
        (b"a\nb\n\na\n", ":4: class a stands on line 1 already"),
        (b"a\n\tname\n", ":2: expected a class id before the tab"),
        (b"\xff\xfe", "is not text in UTF-8"),
    ],
)
def test_mistakes_in_a_users_list_are_told(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_class_file(path)
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_list_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file of classes .*none"):
        read_class_file(tmp_path / "none")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_class_file(tmp_path)
