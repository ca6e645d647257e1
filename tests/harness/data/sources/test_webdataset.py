from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data.sources import open_source
from models.errors import UserError

Tar = Callable[..., Path]


def labels(path: Path) -> dict[str, str]:
    """Class by id."""
    source = open_source(path)
    return {entry.id: source.class_ids[entry.label] for entry in source.entries()}


def test_labels_are_numbers_or_names_in_text_or_json(tar: Tar, tmp_path: Path) -> None:
    tar(
        "shards/a.tar",
        {
            "one.jpg": b"",
            "one.cls": b"1\n",
            "two.png": b"",
            "two.cls": b"cat",
            "three.jpeg": b"",
            "three.json": b'{"label": 0, "class": "ignored"}',
            "four.WEBP": b"",
            "four.json": b'{"class": "dog"}',
            "five.jpg": b"",
            "five.json": b'{"label": "1"}',
        },
    )
    (tmp_path / "shards" / "classes.txt").write_text("cat\ndog\n")
    expected = {"one": "dog", "two": "cat", "three": "cat", "four": "dog", "five": "dog"}
    assert labels(tmp_path / "shards") == {f"a/{key}": name for key, name in expected.items()}


def test_a_key_has_folders_and_ends_at_the_first_dot(tar: Tar) -> None:
    path = tar(
        "x.tar",
        {
            "./v1.2/a.jpg": b"image",
            "./v1.2/a.cls": b"0",
            "./v1.2/a.depth.png": b"another part of the sample",
            "./v1.2/a.txt": b"caption",
            "./v1.2/._a.jpg": b"of macOS",
        },
    )
    assert labels(path) == {"x/v1.2/a": "0"}
    assert open_source(path).read("x/v1.2/a") == b"image"


def test_a_text_label_goes_before_a_json_one(tar: Tar) -> None:
    files = {"a.jpg": b"", "a.json": b'{"label": 7}', "a.cls": b"0"}
    assert labels(tar("x.tar", files)) == {"x/a": "0"}


def test_without_names_numbers_are_names_in_the_order_of_numbers(tar: Tar) -> None:
    files = {}
    for number in (10, 3, 9, 0, 1, 2, 4, 5, 6, 7, 8):
        files |= {f"k{number}.jpg": b"", f"k{number}.cls": str(number).encode()}
    source = open_source(tar("x.tar", files))
    assert source.class_ids == tuple(map(str, range(11)))
    assert [entry.id for entry in source.entries()] == [f"x/k{number}" for number in range(11)]


def test_without_a_list_names_are_sorted(tar: Tar) -> None:
    files = {"a.jpg": b"", "a.cls": b"dog", "b.jpg": b"", "b.cls": b"cat"}
    source = open_source(tar("x.tar", files))
    assert source.class_ids == ("cat", "dog")
    assert labels(source.path) == {"x/a": "dog", "x/b": "cat"}


def test_a_key_may_be_in_every_shard(tar: Tar, tmp_path: Path) -> None:
    for shard in ("b", "a"):
        tar(f"shards/{shard}.tar", {"k.jpg": shard.encode(), "k.cls": b"0"})
    source = open_source(tmp_path / "shards")
    assert [(entry.id, source.read(entry.id)) for entry in source.entries()] == [
        ("a/k", b"a"),
        ("b/k", b"b"),
    ]


@pytest.mark.parametrize("label", [b"2", b"-1", b"bird"])
def test_a_label_beyond_the_names_is_told_with_shard_and_key(
    tar: Tar, tmp_path: Path, label: bytes
) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog")
    path = tar("x.tar", {"a.jpg": b"", "a.cls": b"0", "b/k.jpg": b"", "b/k.cls": label})
    with pytest.raises(UserError, match=f"x/b/k has the label {label.decode()}, .* 0 to 1"):
        labels(path)


def test_a_negative_label_is_refused_without_names_too(tar: Tar) -> None:
    with pytest.raises(UserError, match="x/a has the label -1, but expected 0 or more"):
        labels(tar("x.tar", {"a.jpg": b"", "a.cls": b"-1"}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" \n",
        b"\xff\xfe",
        b"9" * 5000,
        b"x" * (2**20 + 1),
    ],
)
def test_a_text_without_a_label_is_told_with_shard_and_key(tar: Tar, content: bytes) -> None:
    with pytest.raises(UserError, match=r"x.tar: a.cls holds no label"):
        labels(tar("x.tar", {"a.jpg": b"", "a.cls": content}))


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"3",
        b"{}",
        b'{"label": null}',
        b'{"label": true}',
        b'{"label": 1.0}',
        b'{"label": [1]}',
        b'{"label": ""}',
        b"[" * 100_000,
    ],
)
def test_json_without_a_label_is_told_with_shard_and_key(tar: Tar, content: bytes) -> None:
    with pytest.raises(UserError, match=r'x.tar: a.json holds no label: .* "label" or "class"'):
        labels(tar("x.tar", {"a.jpg": b"", "a.json": content}))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"b.jpg": b""}, r"the sample b is b.jpg, but expected one image .* and a label"),
        ({"b.cls": b"0"}, r"the sample b is b.cls"),
        ({"b.jpg": b"", "b.png": b"", "b.cls": b"0"}, r"the sample b is b.jpg, b.png, b.cls"),
    ],
)
def test_samples_need_one_image_and_a_label(
    tar: Tar, files: dict[str, bytes], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        labels(tar("x.tar", {"a.jpg": b"", "a.cls": b"0", **files}))


def test_a_key_that_comes_twice_in_a_shard_is_refused(
    tmp_path: Path, write_twice: Callable[..., Path]
) -> None:
    path = write_twice("tar", ("a.jpg", "a.cls", "b.jpg", "b.cls", "a.jpg"))
    with pytest.raises(UserError, match=r"twice.tar holds a.jpg twice"):
        labels(path)


def test_numbers_beside_names_are_refused_without_a_list(tar: Tar) -> None:
    files = {"a.jpg": b"", "a.cls": b"0", "b.jpg": b"", "b.cls": b"cat"}
    with pytest.raises(UserError, match="some images by number and some by name"):
        labels(tar("x.tar", files))


@pytest.mark.parametrize("missing", [1, 10**15])
def test_a_number_that_no_image_has_is_told(tar: Tar, missing: int) -> None:
    files = {"a.jpg": b"", "a.cls": b"0", "b.jpg": b"", "b.cls": str(missing + 1).encode()}
    with pytest.raises(UserError, match=f"labels up to {missing + 1}, but no image of class 1"):
        labels(tar("x.tar", files))


def test_a_listed_class_without_images_is_named(tar: Tar, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(UserError, match="class dog holds no image"):
        labels(tar("x.tar", {"a.jpg": b"", "a.cls": b"0"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"cat\n\ndog", r"classes.txt has an empty line"),
        (b"cat\ncat", "two classes named cat"),
        (b"\xff", r"classes.txt is not text in UTF-8"),
    ],
)
def test_a_wrong_list_of_classes_is_told(
    tar: Tar, tmp_path: Path, text: bytes, message: str
) -> None:
    (tmp_path / "classes.txt").write_bytes(text)
    with pytest.raises(UserError, match=message):
        labels(tar("x.tar", {"a.jpg": b"", "a.cls": b"0"}))


def test_a_class_whose_name_is_no_text_is_refused(tar: Callable[..., Path]) -> None:
    path = tar("x.tar", {"k.jpg": b"", "k.json": b'{"label": "\\ud800"}'})
    with pytest.raises(UserError, match=r"'\\ud800' is not valid UTF-8"):
        open_source(path).entries()
