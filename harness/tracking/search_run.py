"""The parent run of a search, which the runs of its trials hang below.

Recorded as an ablation is: a journal in the search's folder, a publisher behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from harness.tracking import names
from harness.tracking.ablation_run import TAG_NOTE
from harness.tracking.journal import Journal, Status
from harness.tracking.publisher import Publisher
from harness.tracking.store import Store


class SearchRun:
    """Records a search. Its `folder` is what a trial's `Journal.start` takes as the parent."""

    def __init__(self, folder: Path, store: Store, on_notice: Callable[[str], None]) -> None:
        self.folder = folder
        self._journal = Journal(folder)
        self._publisher = Publisher(folder, store, on_notice)

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
        self._journal.start(
            experiment=scale, run_name=search, tags={**provenance, **tags}, params=params
        )
        self._publisher.start()

    def value(self, metric: str, number: int, value: float) -> None:
        """Record a trial's value; its number is MLflow's step."""
        self._journal.metrics({metric: value}, number)

    def note(self, question: str, table: str) -> None:
        """Describe the run on its MLflow page, in Markdown."""
        self._journal.tags({TAG_NOTE: f"**{question}**\n\n{table.strip()}"})

    def artifact(self, path: Path) -> None:
        """Record a file of the folder."""
        self._journal.artifact(path)

    def leave(self, timeout: float = 10.0) -> None:
        """Stop recording a run that goes on without this process, and send what there is."""
        self._publisher.close(timeout)
        self._journal.close()

    def end(self, status: Status, reason: str, timeout: float = 10.0) -> bool:
        """End the run and send what is left, for at most `timeout` seconds.

        Returns:
            Whether the store has everything.
        """
        self._journal.end(status, reason)
        complete = self._publisher.close(timeout)
        self._journal.close()
        return complete
