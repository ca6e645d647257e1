"""Draws that depend on names alone: everything has a fixed rank, and the first ones are taken.

So the order in which names are given does not matter, and a larger draw contains the smaller one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def ranked(key: str, names: Iterable[str]) -> list[str]:
    """All names, sorted by the SHA-256 of `KEY:NAME`."""

    def rank(name: str) -> bytes:
        # A file's name that is not UTF-8 arrives with surrogates in it.
        return hashlib.sha256(f"{key}:{name}".encode(errors="surrogatepass")).digest()

    return sorted(names, key=rank)
