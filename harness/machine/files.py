"""Files that are either whole or not there.

A full disk as a mistake that the user can mend.

Whether a file can be written, seen before the work whose result it shall hold.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block ends without error.

    The file is flushed to the disk first, so a reader sees the old file or the whole new one, also
    after a crash. The suffix is kept, for writers that look at it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix or ".tmp"
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    write_bytes(path, text.encode())


def remove_leftovers(folder: Path, stem: str) -> None:
    """Remove what processes that were killed while they wrote left behind.

    Args:
        folder: of the files.
        stem: of the files' names; may hold wildcards. Nobody else may be writing them now.
    """
    for leftover in folder.glob(f".{stem}-????????.*"):
        leftover.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def full_disk_as_user_error(what: str) -> Iterator[None]:
    """Context in which files are written.

    Args:
        what: what is written, and where.

    Raises:
        UserError: no space is left, or the user's quota is used up. Files are written whole or not
            at all, so nothing that was saved before is lost.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not _is_full_disk(error):
            raise
        raise UserError(
            f"no space is left on the disk for {what}: free some and repeat the command, which "
            "goes on from what was saved before"
        ) from error


def _is_full_disk(error: BaseException) -> bool:
    """Also where a library met it on the way to another error, or tells it in a type of its own:
    torch closes its archive, which fails again; safetensors has the system's words alone."""
    left: BaseException | None = error
    while left is not None:
        if isinstance(left, OSError) and left.errno in _FULL:
            return True
        if any(os.strerror(number) in str(left) for number in _FULL):
            return True
        left = left.__cause__ or left.__context__
    return False


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
