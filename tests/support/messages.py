"""What tests look at in a message about a user's mistake: all but its wording."""

from __future__ import annotations

import re


def told(line: str) -> tuple[str, str, str | None]:
    """Place, key and suggestion of a message."""
    place, key = line.split(": ")[:2]
    suggestion = re.search(r"\(did you mean (.*)\?\)$", line)
    return place, key, suggestion[1] if suggestion else None
