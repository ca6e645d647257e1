from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import pytest

from harness.data.manifest import Manifest
from harness.data.sources import open_source
from harness.data.verify import check_contents, check_sizes
from harness.processes.progress import Progress, ignore_progress
from models.errors import UserError
from tests.support.stand_ins.memory_source import MemorySource, make, pictures


def manifest_of(files: dict[str, bytes]) -> Manifest:
    return make(MemorySource(files))


def told(manifest: Manifest, source: MemorySource, *, contents: bool) -> str:
    check = partial(check_contents, processes=1, on_progress=ignore_progress)
    with pytest.raises(UserError) as caught:
        (check if contents else check_sizes)(manifest, source)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert "memory does not hold the images of the manifest test/v1: " in text
    return text


FILES = pictures()


def test_the_same_images_pass_and_further_ones_do_not_matter() -> None:
    source = MemorySource({**FILES, "c0/more.png": b"", "a/more.png": b""})
    check_sizes(manifest_of(FILES), source)
    seen: list[Progress] = []
    check_contents(manifest_of(FILES), source, 1, seen.append)
    assert [progress.done for progress in seen] == [*range(1, 13)]


def test_sizes_are_checked_without_reading() -> None:
    check_sizes(manifest_of(FILES), MemorySource(FILES, unread=[*FILES]))


@pytest.mark.parametrize("contents", [False, True])
def test_the_first_missing_image_is_named_with_how_many_more(contents: bool) -> None:
    there = {entry: content for entry, content in FILES.items() if entry[:2] != "c1"}
    problem = told(manifest_of(FILES), MemorySource(there), contents=contents)
    assert "c1/i0.png is missing, and 3 more images differ; restore them" in problem


@pytest.mark.parametrize("contents", [False, True])
def test_another_size_is_named_with_both(contents: bool) -> None:
    source = MemorySource({**FILES, "c2/i1.png": b"12345"})
    problem = told(manifest_of(FILES), source, contents=contents)
    assert f"c2/i1.png has 5 bytes instead of {len(FILES['c2/i1.png'])}; restore" in problem


def test_other_content_of_the_same_size_is_named_with_both_hashes() -> None:
    changed = bytearray(FILES["c1/i3.png"])
    changed[-1] ^= 1
    source = MemorySource({**FILES, "c1/i3.png": bytes(changed)})
    check_sizes(manifest_of(FILES), source)
    problem = told(manifest_of(FILES), source, contents=True)
    old = hashlib.sha256(FILES["c1/i3.png"]).hexdigest()[:12]
    new = hashlib.sha256(changed).hexdigest()[:12]
    assert f"c1/i3.png has other content, SHA-256 {new}... instead of {old}...; " in problem


def test_an_image_that_cannot_be_read_is_named_with_the_reason() -> None:
    source = MemorySource(FILES, damaged=["c0/i2.png"])
    problem = told(manifest_of(FILES), source, contents=True)
    assert "c0/i2.png cannot be read (c0/i2.png is damaged); restore" in problem


def test_the_first_in_the_manifests_order_is_named_whatever_is_wrong_with_it() -> None:
    there = {entry: content for entry, content in FILES.items() if entry != "c2/i3.png"}
    swapped = {"c0/i1.png": FILES["c0/i1.png"][::-1], "c1/i1.png": b"short"}
    problem = told(manifest_of(FILES), MemorySource({**there, **swapped}), contents=True)
    assert "c0/i1.png has other content" in problem
    assert "and 2 more images differ" in problem


def test_several_processes_find_the_same(tmp_path: Path) -> None:
    for entry, content in FILES.items():
        (tmp_path / entry).parent.mkdir(exist_ok=True)
        (tmp_path / entry).write_bytes(content)
    check_contents(manifest_of(FILES), open_source(tmp_path), 2, ignore_progress)
    (tmp_path / "c0/i1.png").write_bytes(FILES["c0/i1.png"][::-1])
    (tmp_path / "c1/i1.png").write_bytes(FILES["c1/i1.png"][::-1])
    with pytest.raises(UserError, match=r"c0/i1.png has other content.*and 1 more images differ"):
        check_contents(manifest_of(FILES), open_source(tmp_path), 2, ignore_progress)
