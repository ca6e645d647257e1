"""Short hashes of data, for `data.content`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

_DIGITS = 16


def hash_of_facts(facts: object) -> str:
    """16 hex digits over what can be written as JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def hash_of_files(files: Iterable[tuple[str, Path]]) -> str:
    """16 hex digits over names and contents, in the order given."""
    digest = hashlib.sha256()
    for name, path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()[:_DIGITS]
