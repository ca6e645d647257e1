"""A run that the runs of trials hang below: what an ablation's and a search's have in common.

It is recorded as a trial is: a journal in its folder, a publisher behind it. So it works while no
server answers, and a repeated command goes on with the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from harness.tracking.journal import Journal, Status
from harness.tracking.publisher import Publisher
from harness.tracking.store import Store

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
            params: the same.
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
