"""The local, append-only record of one run, written before anything is sent to MLflow.

The process that runs the trial writes it, and of an ablation's run perhaps a second command; each
event is one line, written at once, so that a kill at any moment costs at most the line being
written. The publisher syncs metrics to the disk before it sends them, in its own thread.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from harness.machine.files import write_bytes
from harness.tracking import events
from harness.tracking.events import JOURNAL_FILE, PUBLISHED_FILE
from harness.vocabulary.names import LONGEST_NAME, TAG_ENDED_BECAUSE, TAG_PARENT, check_name
from models.errors import Preempted

TAG_NON_FINITE = "harness.non_finite"
"""Followed by a dot and the metric: where that metric was first infinite or not a number."""
TAG_CHANGED_ON_RESUME = "harness.changed_on_resume"
"""JSON object of the parameters that a resumed run was given with another value."""

Status = Literal["FINISHED", "FAILED", "KILLED"]


def ending_of(error: BaseException) -> tuple[Status, str]:
    """Status and reason of a run that an exception ended; what a signal stopped is gone on with."""
    if isinstance(error, Preempted):
        return "KILLED", str(error)
    if isinstance(error, Exception):
        return "FAILED", f"{type(error).__name__}: {error}"
    return "KILLED", "interrupted"


class Journal:
    """Events of one run, in `tracking.jsonl` in the run's folder.

    Opening an existing journal cuts off a torn last line and remembers which (metric, step) pairs
    are in it: a resumed trial that repeats the steps since its last checkpoint logs none twice.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._lock = threading.Lock()
        self._begin: events.Begin | None = None
        self._seen: set[tuple[str, int]] = set()
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._file = _opened(folder / JOURNAL_FILE)
        with self._alone():
            self._recall()

    def start(
        self,
        *,
        experiment: str,
        run_name: str,
        tags: Mapping[str, str],
        params: Mapping[str, object],
        parent: Path | None = None,
    ) -> None:
        """Begin the run, or go on with it where the journal already has it.

        A resumed run keeps its name, its parent and its parameters. Changed tags are written
        anew; a changed parameter, which MLflow would refuse, is recorded in a tag.

        Args:
            experiment: MLflow's, here the scale.
            run_name: what MLflow lists the run as.
            tags: values may hold links, see `run_link`.
            params: flat; values that are not strings are written as in YAML. May grow.
            parent: folder of the parent run's journal, which must have been started before.
        """
        with self._lock:
            if self._begin is not None:
                self._write(events.Resume(_now()))
            else:
                begin = events.Begin(uuid.uuid4().hex, experiment, run_name, _now())
                if os.fstat(self._file).st_size:
                    self._put_first(begin)
                else:
                    self._write(begin)
            self._write_tags(tags)
            if changed := self._write_params(params):
                self._write_tags({TAG_CHANGED_ON_RESUME: json.dumps(changed)})
            if parent is not None and TAG_PARENT not in self._tags:
                self._write_tags({TAG_PARENT: events.run_link(parent, self.folder)})

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record metrics of one step. A (metric, step) pair already recorded is left out.

        MLflow stores infinity as 1.797e308, so a value that is not finite is left out and its
        first occurrence recorded in a tag.

        Raises:
            ValueError: MLflow would refuse a name.
        """
        for key in values:
            check_name(key)
        with self._lock:
            new = {k: float(v) for k, v in values.items() if (k, step) not in self._seen}
            finite = {key: value for key, value in new.items() if math.isfinite(value)}
            if finite:
                self._write(events.Metrics(finite, step, _now()))
            for key in new.keys() - finite.keys():
                self._seen.add((key, step))
                tag = f"{TAG_NON_FINITE}.{key}"[:LONGEST_NAME]
                if tag not in self._tags:
                    self._write_tags({tag: f"{new[key]} at step {step}, left out; the first one"})

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; values may hold links, see `run_link`. Unchanged ones are not written again.

        Raises:
            ValueError: MLflow would refuse a name.
        """
        with self._lock:
            self._write_tags(tags)

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file, by its path within the run's folder, as an artifact. A later call sends it
        anew. `folder` is where it goes within the run's artifacts.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file lies outside the run's folder.
        """
        absolute = (self.folder / path).resolve()
        relative = absolute.relative_to(self.folder.resolve())
        if not absolute.is_file():
            raise FileNotFoundError(absolute)
        self._write_through(events.Artifact(relative.as_posix(), folder))

    def text(self, name: str, text: str) -> None:
        """Record an artifact called `name` by its content, which may hold links, see `run_link`."""
        self._write_through(events.Text(name, text))

    def end(self, status: Status, reason: str = "") -> None:
        """End the run; `reason` says why it ended and becomes a tag."""
        if reason:
            self.tags({TAG_ENDED_BECAUSE: reason})
        self._write_through(events.End(status, reason, _now()))

    def close(self) -> None:
        """Release the file. The journal can be opened again."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from appending meanwhile: a second command, or `report`, opens the
        journal of an ablation that is at work, and a line half written would look torn to it."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _recall(self) -> None:
        """Read what is in the file and cut off a last line that was torn. Needs `_alone`."""
        whole = 0
        with open(self._file, "rb", closefd=False) as file:
            for event, end in events.read_events(file, 0):
                if whole == 0 or not isinstance(event, events.Begin):
                    self._remember(event)
                whole = end
        os.ftruncate(self._file, whole)

    def _put_first(self, begin: events.Begin) -> None:
        """Begin a journal again whose first line is damaged, and keep what follows it.

        It is another run to MLflow, whose id is in the line that was lost.
        """
        path = self.folder / JOURNAL_FILE
        _, _, rest = path.read_bytes().partition(b"\n")
        write_bytes(path, events.encode(begin) + rest)
        (self.folder / PUBLISHED_FILE).unlink(missing_ok=True)
        os.close(self._file)
        self._file = _opened(path)
        self._begin = begin

    def _remember(self, event: events.Event | events.Damaged) -> None:
        match event:
            case events.Begin():
                self._begin = event
            case events.Params(params):
                self._params |= params
            case events.Tags(tags):
                self._tags |= tags
            case events.Metrics(values, step):
                self._seen.update((key, step) for key in values)

    def _write(self, event: events.Event) -> None:
        if self._begin is None and not isinstance(event, events.Begin):
            raise RuntimeError(f"the journal in {self.folder} has not been started")
        line = events.encode(event)
        with self._alone():
            if os.write(self._file, line) != len(line):
                self._recall()  # cuts off the half, or the next line would be glued to it
                path = self.folder / JOURNAL_FILE
                raise OSError(errno.ENOSPC, "no room for the whole line", path)
        self._remember(event)

    def _write_through(self, event: events.Event) -> None:
        """Write an event that a power failure shall not take back."""
        with self._lock:
            self._write(event)
            os.fsync(self._file)

    def _write_tags(self, tags: Mapping[str, str]) -> None:
        for key in tags:
            check_name(key)
        changed = {key: value for key, value in tags.items() if self._tags.get(key) != value}
        if changed:
            self._write(events.Tags(changed))

    def _write_params(self, params: Mapping[str, object]) -> dict[str, str]:
        """Write those not yet recorded; give back those recorded with another value."""
        texts = {}
        for key, value in params.items():
            check_name(key)
            texts[key] = value if isinstance(value, str) else json.dumps(value, default=str)
        new = {key: text for key, text in texts.items() if key not in self._params}
        if new:
            self._write(events.Params(new))
        return {key: text for key, text in texts.items() if self._params[key] != text}


def end_left_run(folder: Path, status: Status, reason: str) -> None:
    """End a run whose process had no time to do it; nothing where none was begun in the folder."""
    if events.first_event(folder) is not None:
        with closing(Journal(folder)) as journal:
            journal.end(status, reason)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)


def _now() -> int:
    return int(time.time() * 1000)
