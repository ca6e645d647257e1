"""Whether a file can be written, seen before the work whose result it shall hold."""

from __future__ import annotations

import tempfile
from pathlib import Path

from models.errors import UserError


def check_writable(path: Path) -> None:
    """Make the folder, and a temporary file in it that is gone again.

    Raises:
        UserError: a file cannot be written there.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder, but a file is to be written there")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.stem}-"):
            pass
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error}): name a file in a folder that can be written to"
        ) from error
