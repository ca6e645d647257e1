"""Reading a part of a file without a position that threads or forked processes could share."""

from __future__ import annotations

import os
from pathlib import Path


def read_range(path: Path, offset: int, size: int) -> bytes:
    """Open a file and read `size` bytes of it.

    Raises:
        OSError: it cannot be opened.
        ValueError: it ends before.
    """
    with path.open("rb", buffering=0) as file:
        return read_exactly(file.fileno(), offset, size)


def read_exactly(descriptor: int, offset: int, size: int) -> bytes:
    """Read `size` bytes of an open file.

    Raises:
        ValueError: it ends before.
    """
    parts = []
    missing = size
    # One call returns 2 GiB at most, and fewer bytes on some network file systems.
    while missing:
        part = os.pread(descriptor, missing, offset + size - missing)
        if not part:
            raise ValueError(f"the file ends {missing} bytes before the image does")
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
