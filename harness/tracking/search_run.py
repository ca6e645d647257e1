"""The parent run of a search, which the runs of its trials hang below."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.tracking.parent_run import TAG_NOTE, ParentRun
from harness.vocabulary import names


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

    def note(self, question: str, table: str) -> None:
        """Describe the run on its MLflow page, in Markdown."""
        self.journal.tags({TAG_NOTE: f"**{question}**\n\n{table.strip()}"})

    def artifact(self, path: Path) -> None:
        """Record a file of the folder."""
        self.journal.artifact(path)
