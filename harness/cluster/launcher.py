"""What an ablation sees of the place where its trials run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from harness.processes.jobs import Job, JobEvent, JobResult


class Plan(Protocol):
    """How a number of jobs will be run."""

    @property
    def threads(self) -> int:
        """CPU threads of each process."""

    @property
    def processes(self) -> int:
        """How many train a trial together."""

    @property
    def side_by_side(self) -> int:
        """How many jobs share a machine, as far as known."""

    def run(
        self, jobs: Sequence[Job], target: str, on_event: Callable[[JobEvent], None]
    ) -> list[JobResult]:
        """Run all jobs.

        Args:
            jobs: their keys must differ and their payloads be writable as JSON.
            target: "package.module:function", called as `function(payload, report, stop)`.
            on_event: called in this thread.

        Returns:
            One result a job, in the order of `jobs`.

        Raises:
            UserError: the jobs cannot be run like this; none was started.
            Interrupted: Ctrl-C or SIGTERM, and the jobs have saved and stopped.
            Detached: the jobs go on.
        """


class Launcher(Protocol):
    """A place where trials run."""

    def plan(self, jobs: int, *, wants_gpu: bool) -> Plan:
        """How so many jobs would be run; `wants_gpu` is false where all of them keep to CPUs."""

    def scripts(self, jobs: Sequence[Job]) -> list[str]:
        """What would be handed to a scheduler for these jobs.

        Raises:
            UserError: there is none, or the request can never be met.
        """
