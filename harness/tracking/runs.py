"""The runs that the runs of trials hang below in MLflow: an ablation's and a search's.

Each is recorded as a trial is: a journal in its folder, a publisher behind it. So it works while no
server answers, and a repeated command goes on with the run of the same trials.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.machine.files import read_json, write_bytes
from harness.tracking import events
from harness.tracking.events import JOURNAL_FILE
from harness.tracking.journal import Journal, Status, ending_of
from harness.tracking.provenance import provenance_tags
from harness.tracking.publisher import Publisher
from harness.tracking.store import Store
from harness.vocabulary import names
from harness.vocabulary.names import short_hash
from models.errors import Detached

if TYPE_CHECKING:
    from harness.config.load import Trial

_NAME_TAGS = {names.KIND_ABLATION: names.TAG_ABLATION, names.KIND_SEARCH: names.TAG_SEARCH}
TAG_NOTE = "mlflow.note.content"
"""Markdown that MLflow's page of a run shows as its description."""


class ParentRun:
    """The journal of a run with others below it. Its `folder` is what a trial's `Journal.start`
    takes as the parent."""

    def __init__(self, folder: Path, store: Store, on_notice: Callable[[str], None]) -> None:
        self.folder = folder
        self.journal = Journal(folder)
        self._store = store
        self._publisher = Publisher(folder, store, on_notice)

    @property
    def run_id(self) -> str | None:
        """The run's id, or None until the store has one."""
        return self._publisher.run_id

    def start(
        self,
        kind: str,
        *,
        scale: str,
        name: str,
        question: str,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, object] | None = None,
    ) -> None:
        """Begin, or go on with, the run and send it in the background.

        Args:
            kind: `names.KIND_ABLATION` or `names.KIND_SEARCH`.
            scale: its name, which is MLflow's experiment.
            name: of the ablation or search, and of the run.
            question: what it asks, in words.
            tags: further ones, as `Journal.start` takes them.
            params: as `Journal.start` takes them.
        """
        all_tags = {
            **provenance_tags(self._store.root),
            names.TAG_KIND: kind,
            _NAME_TAGS[kind]: name,
            names.TAG_SCALE: scale,
            names.TAG_QUESTION: question,
            **(tags or {}),
        }
        self.journal.start(experiment=scale, run_name=name, tags=all_tags, params=params or {})
        self._publisher.start()

    @contextmanager
    def ended_by_errors(self) -> Iterator[None]:
        """End the run with the error that leaves the context, but not where its jobs go on."""
        try:
            yield
        except Detached:
            self.leave()
            raise
        except BaseException as error:
            self.end(*ending_of(error))
            raise

    def leave(self, timeout: float = 10.0) -> None:
        """Stop recording a run that goes on without this process, and send what there is."""
        self._publisher.close(timeout)
        self.journal.close()

    def end(self, status: Status, reason: str, timeout: float = 10.0) -> bool:
        """End the run and send what is left, for at most `timeout` seconds; whether that is all."""
        self.journal.end(status, reason)
        complete = self._publisher.close(timeout)
        self.journal.close()
        return complete

    def note(self, text: str) -> None:
        """Describe the run on its MLflow page, in Markdown."""
        self.journal.tags({TAG_NOTE: text.strip()})

    def artifact(self, path: Path) -> None:
        """Record a file. The run keeps a copy of one from another folder, which may be replaced."""
        copy = self.folder / path.name
        if path.resolve() != copy.resolve():
            write_bytes(copy, path.read_bytes())
        self.journal.artifact(copy.relative_to(self.folder))


@dataclass(frozen=True)
class AblationMember:
    """One trial that an ablation compares, with its folder, and whether it was finished before."""

    trial: Trial
    folder: Path
    reused: bool


def ablation_folder(runs_dir: Path, scale: str, ablation: str, hashes: Sequence[str]) -> Path:
    """Where the parent run of one ablation over one set of trials keeps its journal. The hashes are
    those of the trials, in any order; another set is another run."""
    key = short_hash(hashlib.sha256("\n".join(sorted(set(hashes))).encode()).hexdigest())
    return _folder(runs_dir, scale, ablation) / key


def ablation_folders(runs_dir: Path, scale: str, ablation: str) -> list[Path]:
    """The folders of all runs of an ablation, one a set of trials that it was run with."""
    found = _folder(runs_dir, scale, ablation).glob(f"*/{JOURNAL_FILE}")
    return sorted(path.parent for path in found)


def _folder(runs_dir: Path, scale: str, ablation: str) -> Path:
    return runs_dir / "reports" / scale / ablation / "tracking"


def list_trials(journal: Journal, members: Sequence[AblationMember], floor_file: Path) -> None:
    """Record the trials that an ablation compares, in table order, as `names.ARTIFACT_TRIALS`.

    One that has not begun is listed without a run. The floor's file, of what real images score
    against real ones, need not be there yet.
    """
    trials = [
        {
            "variant": member.trial.variant,
            "seed": member.trial.seed,
            "hash": member.trial.hash,
            "run_id": events.run_link(member.folder, journal.folder),
        }
        for member in members
    ]
    where = Path(os.path.relpath(floor_file.resolve(), journal.folder.resolve())).as_posix()
    _list(journal, {"trials": trials, "floor_file": where})


def members_table(members: Sequence[AblationMember], folder: Path) -> str:
    """Where each trial of an ablation is, in Markdown, for the note of its run in `folder`."""
    lines = ["| variant | seed | run | |", "|---|---|---|---|"]
    for member in members:
        origin = "reused" if member.reused else "trained for this ablation"
        link = events.run_link(member.folder, folder)
        lines.append(f"| {member.trial.variant} | {member.trial.seed} | {link} | {origin} |")
    if any(member.reused for member in members):
        lines += ["", "A reused trial is listed below the ablation that trained it first."]
    return "\n".join(lines)


def list_trials_again(folder: Path) -> None:
    """Record the trials of the ablation's run in `folder` once more, since those that began later
    have a run by now; nothing where it has finished, since all is recorded then.

    For a report of an ablation that is still at work, or that nobody follows to its end.
    """
    listing, over = None, False
    for event in events.recorded_events(folder):
        if isinstance(event, events.Text) and event.name == names.ARTIFACT_TRIALS:
            listing = json.loads(event.text)
        elif isinstance(event, events.Begin | events.Resume | events.End):
            over = isinstance(event, events.End) and event.status == "FINISHED"
    if listing is not None and not over and "floor_file" in listing:
        with closing(Journal(folder)) as journal:
            _list(journal, listing)


def _list(journal: Journal, listing: Mapping[str, Any]) -> None:
    """Write the listing with the floor's figures, as far as they are there."""
    floor_file = journal.folder / listing["floor_file"]
    floor = read_json(floor_file) if floor_file.exists() else {}
    figures = {"floor": floor.get("metrics", {}), "floor_identity": floor.get("identity", {})}
    journal.text(names.ARTIFACT_TRIALS, json.dumps({**listing, **figures}, indent=1))
