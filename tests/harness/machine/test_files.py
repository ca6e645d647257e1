from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.machine.files import DamagedFileError, read_json, write_bytes, write_json


@dataclass(frozen=True)
class Ending:
    steps: int
    seconds: float | None
    skipped: tuple[int, ...] = ()


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_bytes(path, b"old")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_it_as_far_as_the_umask_allows(tmp_path: Path) -> None:
    written, ordinary = tmp_path / "written", tmp_path / "ordinary"
    write_bytes(written, b"")
    ordinary.write_bytes(b"")
    assert written.stat().st_mode == ordinary.stat().st_mode


def test_a_failed_write_keeps_the_old_file_and_leaves_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="irectory"):
        write_bytes(path, b"new")
    assert (path / "inside").is_dir()
    assert list(tmp_path.iterdir()) == [path]


def test_a_dataclass_comes_back_from_json_with_its_types(tmp_path: Path) -> None:
    path = tmp_path / "ending.json"
    write_json(path, Ending(3, None, (1, 2)), indent=2)
    assert read_json(path) == {"steps": 3, "seconds": None, "skipped": [1, 2]}
    assert read_json(path, Ending) == Ending(3, None, (1, 2))


def test_a_field_with_a_default_may_be_absent(tmp_path: Path) -> None:
    path = tmp_path / "ending.json"
    write_json(path, {"steps": 3, "seconds": 1.5})
    assert read_json(path, Ending) == Ending(3, 1.5)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "Expecting value"),
        (b'{"steps": 3, "secon', "Unterminated string"),
        (b"\x80{}", "decode"),
        (b'{"steps": 3, "seconds": 1, "colour": 2}', "colour"),
        (b'{"seconds": 1}', "steps"),
        (b'{"steps": "many", "seconds": 1}', "steps"),
        (b"[1, 2]", "dictionary"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong_and_what_to_do(
    tmp_path: Path, content: bytes, what: str
) -> None:
    path = tmp_path / "ending.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError) as caught:
        read_json(path, Ending, remedy="remove it")
    message = str(caught.value)
    assert str(path) in message
    assert what in message
    assert message.endswith(": remove it")
    assert "\n" not in message
