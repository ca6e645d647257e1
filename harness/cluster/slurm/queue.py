"""The user's jobs as `squeue` shows them."""

from __future__ import annotations

from dataclasses import dataclass

from harness.cluster.slurm.commands import ask

_FORMAT = "%i|%j|%T|%L|%r"
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
_RUNNING = ("RUNNING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT")
_ENDING = "COMPLETING"
_ENDINGS = {
    "TIMEOUT": "its time was over before it could save: cluster.signal_seconds may be too short",
    "OUT_OF_MEMORY": "memory ran out: cluster.memory may be too small",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "CANCELLED": "cancelled",
    "PREEMPTED": "preempted, and not put back",
    "DEADLINE": "its deadline passed",
}


@dataclass(frozen=True)
class QueuedJob:
    """One job, or one element of an array, that SLURM knows."""

    job: str
    """`12`, or `12_3` in an array."""
    name: str
    state: str
    """As SLURM writes it: PENDING, RUNNING, TIMEOUT and so on."""
    time_left: str
    """Until its limit, such as 1:59:30."""
    reason: str
    """Why it waits; empty where SLURM names nothing."""

    @property
    def waits(self) -> bool:
        return self.state in _WAITING

    @property
    def runs(self) -> bool:
        return self.state in _RUNNING

    @property
    def is_ending(self) -> bool:
        """Its processes are being cleared away; it may be on its way back into the queue."""
        return self.state == _ENDING

    @property
    def active(self) -> bool:
        """Whether it still may do something."""
        return self.waits or self.runs or self.is_ending


def read_queue(timeout: float) -> dict[str, QueuedJob]:
    """All jobs of this user that SLURM remembers, by their ids; those that ended, for some minutes.

    Raises:
        SlurmError: `squeue` gives no answer.
    """
    text = ask(
        ["squeue", "--all", "--me", "--noheader", "--array", "--states=all", f"--format={_FORMAT}"],
        timeout,
    )
    return parse_queue(text)


def parse_queue(text: str) -> dict[str, QueuedJob]:
    """The jobs in `squeue`'s output of our format."""
    jobs = {}
    for line in text.splitlines():
        if line.count("|") >= 4:
            job, name, state, time_left, reason = line.split("|", 4)
            jobs[job] = QueuedJob(job, name, state, time_left, "" if reason == "None" else reason)
    return jobs


def describe_ending(found: QueuedJob | None) -> str:
    """Why a job is over that said nothing itself: what SLURM says of it, if it remembers."""
    if found is None:
        return "the job ended without a word"
    known = _ENDINGS.get(found.state)
    if known is not None:
        return known
    return "the job ended without a word" + (f" ({found.reason})" if found.reason else "")
