from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from harness.data.manifest import (
    LeftOut,
    Manifest,
    ManifestClass,
    ManifestImage,
    read_manifest,
    write_manifest,
)
from models.errors import UserError

SHA = hashlib.sha256(b"an image").hexdigest()

MANIFEST = Manifest(
    name="pets/v1",
    seed=3,
    per_class=2,
    classes=(ManifestClass("n1", "cat, Felis"), ManifestClass("n2", "h\u00fcnd \u72ac")),
    images=(
        ManifestImage("n1/a.JPEG", 0, 10, SHA),
        ManifestImage("n1/b \u00e9.JPEG", 0, 11, SHA),
        ManifestImage("n2/a.JPEG", 1, 12, SHA),
        ManifestImage("n2/z\udcff.JPEG", 1, 2**40, SHA),
    ),
    left_out=(LeftOut("n1/c.JPEG", "not an image"),),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "pets.json"
    write_manifest(path, MANIFEST)
    return path


def edited(path: Path, key: str, value: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def told(path: Path) -> str:
    """The error of reading, which is one line that names the file."""
    with pytest.raises(UserError) as caught:
        read_manifest(path)
    text = str(caught.value)
    assert str(path) in text
    assert len(text.splitlines()) == 1
    assert "harness data make-manifest" in text or "cannot be read" in text
    return text


def test_what_is_written_is_read_back(path: Path) -> None:
    assert read_manifest(path) == MANIFEST
    assert read_manifest(path).hash == MANIFEST.hash


def test_what_was_never_drawn_is_read_back_too(path: Path) -> None:
    plain = dataclasses.replace(MANIFEST, seed=None, per_class=None, left_out=())
    write_manifest(path, plain)
    assert read_manifest(path) == plain


def test_equal_manifests_give_equal_bytes(path: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path / "again.json", dataclasses.replace(MANIFEST))
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_the_file_has_an_image_a_line(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert f'["n1/a.JPEG",0,10,"{SHA}"],' in lines
    assert len(lines) < 30


def test_the_hash_is_that_of_the_documented_json() -> None:
    facts = {
        "name": "pets/v1",
        "seed": 3,
        "per_class": 2,
        "classes": [["n1", "cat, Felis"], ["n2", "h\u00fcnd \u72ac"]],
        "left_out": [["n1/c.JPEG", "not an image"]],
        "images": [
            ["n1/a.JPEG", 0, 10, SHA],
            ["n1/b \u00e9.JPEG", 0, 11, SHA],
            ["n2/a.JPEG", 1, 12, SHA],
            ["n2/z\udcff.JPEG", 1, 2**40, SHA],
        ],
    }
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    assert MANIFEST.hash == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "pets/v2"},
        {"seed": 4},
        {"per_class": 3},
        {"classes": (ManifestClass("n1", "cat"), MANIFEST.classes[1])},
        {"classes": (ManifestClass("n0", "cat, Felis"), MANIFEST.classes[1])},
        {"images": MANIFEST.images[:-1]},
        {"images": (ManifestImage("n1/a.JPEG", 0, 9, SHA), *MANIFEST.images[1:])},
        {"images": (ManifestImage("n1/a.JPEG", 0, 10, "0" * 64), *MANIFEST.images[1:])},
        {"left_out": ()},
        {"left_out": (LeftOut("n1/c.JPEG", "truncated"),)},
    ],
)
def test_the_hash_covers(change: dict[str, Any]) -> None:
    assert dataclasses.replace(MANIFEST, **change).hash != MANIFEST.hash


def test_a_missing_file_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    assert "there is no manifest" in told(tmp_path / "none.json")


def test_a_folder_is_no_manifest(tmp_path: Path) -> None:
    assert "cannot be read" in told(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\xfd",
        b"[" * 100_000,
        b'{"format": ' + b"1" * 5000 + b"}",
        b"[]",
        b"null",
    ],
)
def test_what_is_not_json_is_told(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "is damaged (" in told(path)


def test_a_file_that_was_cut_off_is_told(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])
    assert "is damaged (" in told(path)


@pytest.mark.parametrize("content", ["{}", '{"name": "pets"}'])
def test_json_of_something_else_is_told(path: Path, content: str) -> None:
    path.write_text(content)
    assert "format: Field required" in told(path)


@pytest.mark.parametrize("version", [2, 0, "1", None, float("nan")])
def test_another_format_is_told(path: Path, version: Any) -> None:
    edited(path, "format", version)
    assert f"format is {version!r}: Input should be 1" in told(path)


def test_missing_and_unknown_keys_are_told(path: Path) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "more\n": 1}))
    assert r"more\n is 1: Extra inputs are not permitted" in told(path)
    del content["seed"]
    path.write_text(json.dumps(content))
    assert "seed: Field required" in told(path)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("name", None, "name is None"),
        ("name", "", "its name is empty"),
        ("seed", "0", "seed is '0'"),
        ("seed", True, "seed is True"),
        ("per_class", 1.5, "per_class is 1.5"),
        ("per_class", 0, "per_class is 0"),
        ("classes", {}, "classes is {}"),
        ("classes", [], "classes is []"),
        ("classes", ["n1", "n2"], "classes.0 is 'n1'"),
        ("classes", [["n1", 2]], "classes.0.1 is 2"),
        ("classes", [["n1", "a"], ["n1", "b"]], "names the class 'n1' twice"),
        ("classes", [["n1", "a"], ["n2", "b"], ["n3", "c"]], "class 'n3' has no image"),
        ("left_out", [["n1/c.JPEG"]], "left_out.0.1: Field required"),
        ("left_out", [["n1/a.JPEG", "?"]], "names the image 'n1/a.JPEG' twice"),
        ("images", "many", "images is 'many'"),
        ("images", [], "class 'n1' has no image"),
        ("images", [["n1/a", 0, 1]], "images.0.3: Field required"),
        ("images", [["n1/a", False, 1, SHA]], "images.0.1 is False"),
        ("images", [["n1/a", 0, 1.0, SHA]], "images.0.2 is 1.0"),
        ("images", [[1, 0, 1, SHA]], "images.0.0 is 1"),
        ("images", [["n1/a", 2, 1, SHA]], "'n1/a' has label 2, but there are 2 classes"),
        ("images", [["n1/a", -1, 1, SHA]], "images.0.1 is -1"),
        ("images", [["n1/a", 0, 0, SHA]], "images.0.2 is 0"),
        ("images", [["n1/a", 0, 1, SHA[1:]]], "images.0.3 is"),
        ("images", [["n1/a", 0, 1, SHA.upper()]], "images.0.3 is"),
        ("images", [["n1/a", 0, 1, SHA], ["n1/a", 0, 1, SHA]], "names the image 'n1/a' twice"),
        ("images", [["n1/a", 0, 1, SHA], ["n1/a", 1, 1, SHA]], "names the image 'n1/a' twice"),
        ("images", [["n1/b", 0, 1, SHA], ["n1/a", 0, 1, SHA]], "'n1/a' stands after 'n1/b'"),
        ("images", [["n2/a", 1, 1, SHA], ["n1/b", 0, 1, SHA]], "'n1/b' stands after 'n2/a'"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_told(
    path: Path, key: str, value: Any, problem: str
) -> None:
    edited(path, key, value)
    assert problem in told(path)


def test_a_manifest_without_classes_is_told(path: Path) -> None:
    edited(path, "images", [])
    edited(path, "classes", [])
    assert "classes is []" in told(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("n2/a.JPEG", "n2/b.JPEG"),
        (SHA, "f" * 64),
        ("pets/v1", "pets/v2"),
        ('"seed": 3', '"seed": 4'),
    ],
)
def test_an_edit_by_hand_is_told(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    problem = told(path)
    assert "was edited by hand or damaged: expected hash" in problem
    assert "content gives" in problem


def test_a_hash_that_is_no_text_is_told(path: Path) -> None:
    edited(path, "hash", 7)
    assert "hash is 7: Input should be a valid string" in told(path)


def test_layout_of_the_file_does_not_matter(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4))
    assert read_manifest(path) == MANIFEST


def test_a_manifest_that_could_not_be_read_is_never_written(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match="class 'n2' has no image"):
        write_manifest(path, dataclasses.replace(MANIFEST, images=MANIFEST.images[:2]))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
