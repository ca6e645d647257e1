"""Which part of a journal has reached which store: `tracking.json` beside the journal."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.machine.files import write_bytes
from harness.tracking.events import JOURNAL_FILE

PUBLISHED_FILE = "tracking.json"


@dataclass(frozen=True)
class Published:
    """How far one journal has been sent to one store."""

    experiment_id: str
    run_id: str
    offset: int
    """Bytes of the journal that have been sent."""
    postponed: tuple[int, ...] = ()
    """Offsets of artifacts that the store could not take yet, all of them below `offset`."""


def load_published(folder: Path, store_name: str) -> Published | None:
    """What is known of the journal in `folder` and the store, or None where it was never sent.

    An unreadable file counts as never sent: sending again is harmless.
    """
    entry = _load_all(folder).get(store_name)
    try:
        return Published(**{**entry, "postponed": tuple(entry["postponed"])}) if entry else None
    except (TypeError, KeyError):
        return None


def save_published(folder: Path, store_name: str, published: Published | None) -> None:
    """Replace the entry of one store, atomically; None removes it."""
    entries = _load_all(folder)
    entries.pop(store_name, None)
    if published is not None:
        entries[store_name] = asdict(published)
    write_bytes(folder / PUBLISHED_FILE, json.dumps(entries, indent=1).encode())


def is_complete(folder: Path, store_name: str) -> bool:
    """Whether everything in the folder's journal was sent to the store. Reads local files only."""
    published = load_published(folder, store_name)
    if published is None or published.postponed:
        return False
    try:
        return published.offset == (folder / JOURNAL_FILE).stat().st_size
    except FileNotFoundError:
        return True


def _load_all(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        entries = json.loads((folder / PUBLISHED_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}
