from __future__ import annotations

import pytest

from harness.data.inspect import ClassCount, describe
from models.errors import UserError
from tests.support.stand_ins.memory_source import MemorySource, make, picture, pictures


def uneven() -> dict[str, bytes]:
    """1, 2 and 4 images a class."""
    kept = {"c0/i0.png", "c1/i0.png", "c1/i3.png", *(f"c2/i{number}.png" for number in range(4))}
    return {entry: content for entry, content in pictures().items() if entry in kept}


def test_classes_are_counted() -> None:
    files = uneven()
    source = MemorySource(files)
    described = describe(make(source, names={"c1": "one"}), None)
    sizes = [sum(len(files[e]) for e in files if e.startswith(f"c{label}")) for label in range(3)]
    assert described.classes == (
        ClassCount("c0", "c0", 1, sizes[0]),
        ClassCount("c1", "one", 2, sizes[1]),
        ClassCount("c2", "c2", 4, sizes[2]),
    )
    assert described.per_class == (1, 2, 4)
    assert described.images == 7
    assert described.size == sum(map(len, files.values()))
    assert described.image_sizes is None


def test_name_hash_and_what_was_left_out_are_the_manifests() -> None:
    manifest = make(MemorySource({**pictures(), "c1/i1.png": b"no image"}))
    described = describe(manifest, None)
    assert (described.name, described.hash) == ("test/v1", manifest.hash)
    assert [item.id for item in described.left_out] == ["c1/i1.png"]


def test_widths_and_heights_are_ordered_by_area() -> None:
    sizes = [(9, 9), (40, 1), (2, 8), (7, 30), (16, 16)]
    files = {f"c/{number}.png": picture(*size) for number, size in enumerate(sizes)}
    source = MemorySource(files)
    found = describe(make(source), source).image_sizes
    assert found is not None
    assert found.sampled == 5
    assert (found.smallest, found.median, found.largest) == ((2, 8), (9, 9), (16, 16))
    del source.files["c/0.png"]
    even = describe(make(source), source).image_sizes
    assert even is not None
    assert even.median == (40, 1)


def test_a_sample_is_bounded_and_the_same_each_time() -> None:
    files = {f"c/{number}.png": picture(number + 1, 2) for number in range(20)}
    source = MemorySource(files)
    manifest = make(source)
    first = describe(manifest, source, sampled=3).image_sizes
    assert first is not None
    assert first.sampled == 3
    assert describe(manifest, source, sampled=3).image_sizes == first
    every = describe(manifest, source, sampled=100).image_sizes
    assert every is not None
    assert (every.sampled, every.smallest, every.largest) == (20, (1, 2), (20, 2))


def test_an_image_that_is_gone_is_told() -> None:
    files = pictures()
    manifest = make(MemorySource(files))
    del files["c1/i2.png"]
    with pytest.raises(UserError, match=r"memory lacks c1/i2.png.*data verify"):
        describe(manifest, MemorySource(files))


def test_an_image_that_became_something_else_is_told() -> None:
    files = pictures()
    manifest = make(MemorySource(files))
    with pytest.raises(UserError, match="c1/i2.png in memory cannot be read"):
        describe(manifest, MemorySource({**files, "c1/i2.png": b"text"}))


def test_no_sample_at_all_is_told() -> None:
    source = MemorySource(pictures())
    with pytest.raises(UserError, match="--sampled is 0"):
        describe(make(source), source, sampled=0)
