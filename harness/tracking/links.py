"""Texts that name the run of another journal, whatever its id is in the store at hand.

A run's id differs from store to store and is unknown while a server is down. A journal therefore
names another run by a link to that run's folder, and the publisher puts the id in its place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote

_LINK = re.compile(r"run-id-of\(([^()\s]*)\)")


def run_link(target: Path, source: Path) -> str:
    """A link, for use in the journal of folder `source`, to the run of folder `target`."""
    relative = Path(os.path.relpath(target.resolve(), source.resolve())).as_posix()
    return f"run-id-of({quote(relative)})"


def resolve_links(text: str, source: Path, run_id_of: Callable[[Path], str]) -> str:
    """`text` with every link replaced by the run id that `run_id_of` gives for its folder."""
    return _LINK.sub(lambda link: run_id_of((source / unquote(link[1])).resolve()), text)
