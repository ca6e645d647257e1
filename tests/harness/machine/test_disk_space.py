"""Against `/dev/full`, which refuses every byte as a full disk does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.machine.files import full_disk_as_user_error
from models.errors import UserError

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
