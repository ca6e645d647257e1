"""The runs that the runs of trials hang below in MLflow: an ablation's and a search's.

Each is recorded as a trial is: a journal in its folder, a publisher behind it. So it works while no
server answers, and a repeated command goes on with the run of the same trials.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.machine.files import read_json, write_bytes
from harness.tracking.events import JOURNAL_FILE, Begin, End, Resume, Text, read_events, run_link
from harness.tracking.journal import Journal, Status
from harness.tracking.publisher import Publisher
from harness.tracking.store import Store
from harness.vocabulary import names
from harness.vocabulary.names import short_hash

TAG_NOTE = "mlflow.note.content"
"""Markdown that MLflow's page of a run shows as its description."""


class ParentRun:
    """The journal of a run with others below it. Its `folder` is what a trial's `Journal.start`
    takes as the parent."""

    def __init__(self, folder: Path, store: Store, on_notice: Callable[[str], None]) -> None:
        self.folder = folder
        self.journal = Journal(folder)
        self._publisher = Publisher(folder, store, on_notice)

    @property
    def run_id(self) -> str | None:
        """The run's id, or None until the store has one."""
        return self._publisher.run_id

    def begin(
        self, scale: str, name: str, tags: Mapping[str, str], params: Mapping[str, object]
    ) -> None:
        """Begin, or go on with, the run and send it in the background.

        Args:
            scale: the scale's name, which is MLflow's experiment.
            name: of the run.
            tags: as `Journal.start` takes them.
            params: as `Journal.start` takes them.
        """
        self.journal.start(experiment=scale, run_name=name, tags=tags, params=params)
        self._publisher.start()

    def leave(self, timeout: float = 10.0) -> None:
        """Stop recording a run that goes on without this process, and send what there is."""
        self._publisher.close(timeout)
        self.journal.close()

    def end(self, status: Status, reason: str, timeout: float = 10.0) -> bool:
        """End the run and send what is left, for at most `timeout` seconds.

        Returns:
            Whether the store has everything.
        """
        self.journal.end(status, reason)
        complete = self._publisher.close(timeout)
        self.journal.close()
        return complete


@dataclass(frozen=True)
class AblationMember:
    """One trial that an ablation compares."""

    variant: str
    seed: int
    hash: str
    folder: Path
    """The trial's folder, with its journal."""
    reused: bool
    """Whether it was finished before this command."""


def ablation_folder(runs_dir: Path, scale: str, ablation: str, hashes: Sequence[str]) -> Path:
    """Where the parent run of one ablation over one set of trials keeps its journal.

    Args:
        runs_dir: the folder of all outputs.
        scale: the scale's name.
        ablation: the ablation's name.
        hashes: of the trials, in any order; another set is another run.
    """
    key = short_hash(hashlib.sha256("\n".join(sorted(set(hashes))).encode()).hexdigest())
    return _folder(runs_dir, scale, ablation) / key


def ablation_folders(runs_dir: Path, scale: str, ablation: str) -> list[Path]:
    """The folders of all runs of an ablation, one a set of trials that it was run with."""
    return sorted(
        path.parent for path in _folder(runs_dir, scale, ablation).glob(f"*/{JOURNAL_FILE}")
    )


def _folder(runs_dir: Path, scale: str, ablation: str) -> Path:
    return runs_dir / "reports" / scale / ablation / "tracking"


class AblationRun(ParentRun):
    """Records an ablation."""

    def start(
        self,
        *,
        scale: str,
        ablation: str,
        question: str,
        baseline: str,
        provenance: Mapping[str, str],
    ) -> None:
        """Begin, or go on with, the run and send it in the background.

        Args:
            scale: the scale's name, which is MLflow's experiment.
            ablation: the ablation's name, which is the run's.
            question: what the ablation asks, in words.
            baseline: the variant that the others are compared with.
            provenance: from `Provenance.tags()`.
        """
        tags = {
            names.TAG_KIND: names.KIND_ABLATION,
            names.TAG_ABLATION: ablation,
            names.TAG_SCALE: scale,
            names.TAG_QUESTION: question,
            names.TAG_BASELINE: baseline,
        }
        self.begin(scale, ablation, {**provenance, **tags}, {})

    def trials(self, members: Sequence[AblationMember], floor_file: Path) -> None:
        """Record the compared trials, in table order, as `names.ARTIFACT_TRIALS`.

        Args:
            members: the trials; one that has not begun is listed without a run.
            floor_file: what real images score against real ones, as `measure_floor` writes it; it
                need not be there yet.
        """
        trials = [
            {
                "variant": member.variant,
                "seed": member.seed,
                "hash": member.hash,
                "run_id": run_link(member.folder, self.folder),
            }
            for member in members
        ]
        where = Path(os.path.relpath(floor_file.resolve(), self.folder.resolve())).as_posix()
        _list(self.journal, {"trials": trials, "floor_file": where})

    def note(self, report: str, members: Sequence[AblationMember]) -> None:
        """Describe the run on its MLflow page: the report, and where each trial is.

        Args:
            report: Markdown, which opens with the question.
            members: the trials, in table order.
        """
        lines = [report.strip(), "", "| variant | seed | run | |"]
        lines.append("|---|---|---|---|")
        for member in members:
            link = run_link(member.folder, self.folder)
            origin = "reused" if member.reused else "trained for this ablation"
            lines.append(f"| {member.variant} | {member.seed} | {link} | {origin} |")
        if any(member.reused for member in members):
            lines += ["", "A reused trial is listed below the ablation that trained it first."]
        self.journal.tags({TAG_NOTE: "\n".join(lines)})

    def artifact(self, path: Path) -> None:
        """Record a report file. The run keeps a copy, since a later report replaces the file."""
        copy = self.folder / path.name
        if path.resolve() != copy.resolve():
            write_bytes(copy, path.read_bytes())
        self.journal.artifact(copy.relative_to(self.folder))


def list_trials_again(folder: Path) -> None:
    """Record the trials of an ablation once more: those that began since have a run by now.

    For a report of an ablation that is still at work, or that nobody follows to its end. Nothing
    where it has finished, since all is recorded then.

    Args:
        folder: of the ablation's run.
    """
    listing, over = None, False
    with (folder / JOURNAL_FILE).open("rb") as file:
        for event, _ in read_events(file, 0):
            if isinstance(event, Text) and event.name == names.ARTIFACT_TRIALS:
                listing = json.loads(event.text)
            elif isinstance(event, Begin | Resume | End):
                over = isinstance(event, End) and event.status == "FINISHED"
    if listing is None or over or "floor_file" not in listing:
        return
    journal = Journal(folder)
    _list(journal, listing)
    journal.close()


def _list(journal: Journal, listing: Mapping[str, Any]) -> None:
    """Write the listing with the floor's figures, as far as they are there."""
    floor_file, floor = journal.folder / listing["floor_file"], {}
    if floor_file.exists():
        floor = read_json(floor_file)
    figures = {"floor": floor.get("metrics", {}), "floor_identity": floor.get("identity", {})}
    journal.text(names.ARTIFACT_TRIALS, json.dumps({**listing, **figures}, indent=1))


class SearchRun(ParentRun):
    """Records a search."""

    def start(
        self,
        *,
        scale: str,
        search: str,
        question: str,
        provenance: Mapping[str, str],
        params: Mapping[str, object],
    ) -> None:
        """Begin, or go on with, the run and send it in the background.

        Args:
            scale: the scale's name, which is MLflow's experiment.
            search: the search's name, which is the run's.
            question: what the search asks, in words.
            provenance: from `Provenance.tags()`.
            params: what is searched over, and how.
        """
        tags = {
            names.TAG_KIND: names.KIND_SEARCH,
            names.TAG_SEARCH: search,
            names.TAG_SCALE: scale,
            names.TAG_QUESTION: question,
        }
        self.begin(scale, search, {**provenance, **tags}, params)

    def value(self, metric: str, number: int, value: float) -> None:
        """Record a trial's value; its number is MLflow's step."""
        self.journal.metrics({metric: value}, number)

    def note(self, report: str) -> None:
        """Describe the run on its MLflow page, in Markdown."""
        self.journal.tags({TAG_NOTE: report.strip()})

    def artifact(self, path: Path) -> None:
        """Record a file of the folder."""
        self.journal.artifact(path)
