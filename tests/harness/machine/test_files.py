"""Against `/dev/full`, which refuses every byte as a full disk does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from harness.machine.files import (
    DamagedFileError,
    check_writable,
    full_disk_as_user_error,
    read_json,
    write_bytes,
    write_json,
)
from models.errors import UserError


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


def test_a_folder_is_made_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "table.json")
    assert list((tmp_path / "new").iterdir()) == []


def test_where_no_file_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "out.json", tmp_path, Path("/proc/out.json")):
        with pytest.raises(UserError, match=str(path)):
            check_writable(path)


FULL = Path("/dev/full")


def with_python() -> None:
    FULL.write_text("text")


def with_torch() -> None:
    with FULL.open("wb") as stream:
        torch.save({"weight": torch.zeros(100_000)}, stream)


@pytest.mark.parametrize("write", [with_python, with_torch])
def test_a_full_disk_is_told_in_one_line(write: Callable[[], None]) -> None:
    with (
        pytest.raises(UserError, match="no space is left on the disk for the trial: free some"),
        full_disk_as_user_error("the trial"),
    ):
        write()


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), full_disk_as_user_error("the trial"):
        (tmp_path / "missing" / "file").write_text("text")
    with pytest.raises(UserError, match="^another mistake$"), full_disk_as_user_error("the trial"):
        raise UserError("another mistake")
