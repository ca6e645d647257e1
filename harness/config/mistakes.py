"""One user mistake is one line; a `ConfigError` holds all of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from models.errors import UserError


@dataclass(frozen=True)
class Origin:
    """Where a value was written: a file and its line, counted from 1, or the command line."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


COMMAND_LINE = Origin("command line")


@dataclass(frozen=True)
class Mistake:
    """What is wrong with one key, what was expected and the valid name nearest to it."""

    origin: Origin
    key: str
    problem: str
    expected: str | None = None
    nearest: str | None = None

    def __str__(self) -> str:
        """One line, whatever characters the user's file holds."""
        line = ": ".join(part for part in (str(self.origin), self.key, self.problem) if part)
        if self.expected is not None:
            line += f"; expected {self.expected}"
        if self.nearest is not None:
            line += f" (did you mean {self.nearest}?)"
        return "".join(
            sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in line
        )


class ConfigError(UserError):
    """All mistakes that were found, each once, file by file and line by line."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        found = list(dict.fromkeys(mistakes))
        sources = list(dict.fromkeys(mistake.origin.source for mistake in found))
        found.sort(key=lambda it: (sources.index(it.origin.source), it.origin.line or 0))
        self.mistakes = tuple(found)
        super().__init__("\n".join(map(str, self.mistakes)))


def nearest_name(name: str, valid: Sequence[str]) -> str | None:
    """The valid name most like `name`, letter case aside; None where nothing is alike."""
    by_lower = {candidate.lower(): candidate for candidate in valid}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None
