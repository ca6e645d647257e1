"""What a journal holds: one JSON object a line, and the types these lines are read into.

A run's id differs from store to store and is unknown while a server is down. A text therefore names
another run by a link to its folder; the publisher puts the id in its place.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, get_args
from urllib.parse import quote, unquote

JOURNAL_FILE = "tracking.jsonl"
PUBLISHED_FILE = "tracking.json"
"""Which part of the journal beside it has reached which store."""


@dataclass(frozen=True)
class Begin:
    """First line of every journal: the run as it was when it began. Times are in ms since 1970.

    `journal` is random and unique; the run carries it as a tag, so that it can be found again.
    """

    journal: str
    experiment: str
    run_name: str
    time: int


@dataclass(frozen=True)
class Resume:
    """The run goes on after an interruption or after its end."""

    time: int


@dataclass(frozen=True)
class Params:
    """Parameters, as MLflow keeps them: texts."""

    params: dict[str, str]


@dataclass(frozen=True)
class Metrics:
    """Finite values of one step."""

    values: dict[str, float]
    step: int
    time: int


@dataclass(frozen=True)
class Tags:
    """Values may hold links to other journals' runs, see `run_link`."""

    tags: dict[str, str]


@dataclass(frozen=True)
class Artifact:
    """A file in the journal's folder, by its relative path with forward slashes, and the folder
    within the run's artifacts that it goes to; empty for the top."""

    path: str
    folder: str


@dataclass(frozen=True)
class Text:
    """An artifact whose content is in the journal. It may hold links, see `run_link`."""

    name: str
    text: str


@dataclass(frozen=True)
class End:
    """The run has ended, for the time being: FINISHED, FAILED or KILLED."""

    status: str
    reason: str
    time: int


@dataclass(frozen=True)
class Damaged:
    """The line at byte `at` cannot be read, for instance after a power failure."""

    at: int


AnyArtifact = Artifact | Text
Event = Begin | Resume | Params | Metrics | Tags | Artifact | Text | End
_KINDS: dict[str, type[Event]] = {kind.__name__.lower(): kind for kind in get_args(Event)}


def encode(event: Event) -> bytes:
    """One line with its newline; `ValueError` where a number in it is not finite."""
    fields = {"event": type(event).__name__.lower(), **asdict(event)}
    return json.dumps(fields, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Event | None:
    """The event of a line, or None where the line is damaged."""
    try:
        fields = json.loads(line)
        return _KINDS[fields.pop("event")](**fields)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def read_events(file: BinaryIO, offset: int) -> Iterator[tuple[Event | Damaged, int]]:
    """The events of the complete lines from byte `offset` on, each with the offset behind it.

    A last line without a newline is still being written, or was torn, and is left out.
    """
    file.seek(offset)
    for line in file:
        if not line.endswith(b"\n"):
            return
        event = decode(line) or Damaged(offset)
        offset += len(line)
        yield event, offset


def recorded_events(folder: Path) -> Iterator[Event | Damaged]:
    """The events of the journal in `folder`; none where there is no journal."""
    with suppress(FileNotFoundError), (folder / JOURNAL_FILE).open("rb") as file:
        for event, _ in read_events(file, 0):
            yield event


def first_event(folder: Path) -> Begin | None:
    """How the journal in `folder` begins, or None where there is none or nothing in it yet."""
    event = next(recorded_events(folder), None)
    return event if isinstance(event, Begin) else None


_LINK = re.compile(r"run-id-of\(([^()\s]*)\)")


def run_link(target: Path, source: Path) -> str:
    """A link, for use in the journal of folder `source`, to the run of folder `target`."""
    relative = Path(os.path.relpath(target.resolve(), source.resolve())).as_posix()
    return f"run-id-of({quote(relative)})"


def resolve_links(text: str, source: Path, run_id_of: Callable[[Path], str]) -> str:
    """`text` with every link replaced by the run id that `run_id_of` gives for its folder."""
    return _LINK.sub(lambda link: run_id_of((source / unquote(link[1])).resolve()), text)
