from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine.files import check_writable
from models.errors import UserError


def test_a_folder_is_made_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "table.json")
    assert list((tmp_path / "new").iterdir()) == []


def test_where_no_file_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "out.json", tmp_path, Path("/proc/out.json")):
        with pytest.raises(UserError, match=str(path)):
            check_writable(path)
