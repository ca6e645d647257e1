"""A full disk as a mistake that the user can mend."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from models.errors import UserError

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
