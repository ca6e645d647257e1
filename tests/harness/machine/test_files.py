from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine.files import write_bytes


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
