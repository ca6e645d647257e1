"""Where trials run: the typed content of `experiments/cluster/`. Never part of a trial's hash."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from harness.config.discovery import matching
from harness.config.sections import Section

OWN_OPTIONS = {
    "account": "cluster.account",
    "array": "cluster.max_parallel",
    "comment": None,
    "constraint": "cluster.constraint",
    "cpus-per-task": "cluster.cpus_per_task",
    "error": None,
    "gpus-per-node": "cluster.gpus_per_node",
    "job-name": None,
    "mem": "cluster.memory",
    "nodes": "cluster.nodes",
    "no-requeue": None,
    "ntasks-per-node": "cluster.tasks_per_node",
    "open-mode": None,
    "output": None,
    "partition": "cluster.partition",
    "qos": "cluster.qos",
    "requeue": None,
    "signal": "cluster.signal_seconds",
    "time": "cluster.time",
}
"""Options of sbatch that the launcher sets, and the field that each comes from."""

TimeLimit = (
    Annotated[int, Field(ge=1)]
    | Annotated[str, matching(r"(\d+-)?\d{1,2}:\d{2}:\d{2}", "HH:MM:SS or D-HH:MM:SS")]
)
Memory = Annotated[str, matching(r"[1-9]\d*[KMGT]?B?", "a size such as 64GB")]
Plain = Annotated[str, matching(r"\S+", "text without spaces")]


class LocalCluster(Section):
    """Processes of this machine."""

    launcher: Literal["local"]
    workers: Annotated[int, Field(ge=1)] | Literal["auto"]
    threads_per_worker: Annotated[int, Field(ge=1)] | Literal["auto"]
    processes_per_trial: int = Field(
        ge=1,
        description="that train a trial together, and share its worker's threads; with GPUs, each "
        "has one",
    )


class SlurmCluster(Section):
    """Jobs of a SLURM cluster, one a trial. null leaves an option to the cluster's own default."""

    launcher: Literal["slurm"]
    partition: Plain | None
    account: Plain | None
    qos: Plain | None
    constraint: Annotated[str, Field(min_length=1)] | None
    nodes: int = Field(ge=1, description="a trial")
    tasks_per_node: int = Field(ge=1, description="processes of a trial on each of its nodes")
    gpus_per_node: Annotated[int, Field(ge=1)] | None
    cpus_per_task: int = Field(ge=1)
    memory: Memory | None = Field(description="on each node")
    time: TimeLimit = Field(description="limit of a job, in minutes or as HH:MM:SS")
    max_parallel: int = Field(ge=1, description="jobs of one array that run at once")
    signal_seconds: int = Field(
        ge=1, le=65535, description="a trial is told to save this long before its time is over"
    )
    max_requeues: int = Field(ge=0, description="how often an interrupted trial is put back")
    poll_seconds: float = Field(gt=0, le=3600, description="between two looks at the queue")
    command_timeout: float = Field(gt=0, description="seconds that squeue and the like may take")
    setup: tuple[str, ...] = Field(
        strict=False, description="lines of shell before a trial, such as module load cuda"
    )
    additional: dict[str, str | int | float | bool] = Field(
        description="any further options of sbatch; true is a flag without a value"
    )

    @property
    def minutes(self) -> int:
        """The time limit, rounded up."""
        return self.time if isinstance(self.time, int) else -(-seconds_of(self.time) // 60)

    @property
    def tasks(self) -> int:
        """Processes a trial."""
        return self.nodes * self.tasks_per_node

    def problems(self) -> Iterator[str]:
        for name, value in self.additional.items():
            key = f"cluster.additional.{name}"
            if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
                yield f"cluster.additional has {name!r}, no long option of sbatch, such as nodelist"
                continue
            option = name.replace("_", "-")
            if option in OWN_OPTIONS:
                field = OWN_OPTIONS[option]
                instead = f"set {field} instead" if field else "the launcher needs its own value"
                yield f"{key} cannot be set: {instead}"
            if value is False or "\n" in str(value):
                yield f"{key} must be true or one line of text"
        if any(line.lstrip().startswith("#SBATCH") for line in self.setup):
            yield "cluster.setup has #SBATCH lines, which belong in cluster.additional"
        if self.gpus_per_node is not None and self.tasks_per_node > self.gpus_per_node:
            yield (
                "cluster.tasks_per_node must not exceed cluster.gpus_per_node, since each process "
                f"needs a GPU of its own, but {self.tasks_per_node} > {self.gpus_per_node}"
            )
        if self.signal_seconds >= 60 * self.minutes:
            yield (
                f"cluster.signal_seconds must be less than cluster.time, but {self.signal_seconds} "
                f"s are not less than {self.minutes} min"
            )


ClusterConfig = LocalCluster | SlurmCluster


def seconds_of(text: str) -> int:
    """Seconds of SLURM's `[D-]HH:MM:SS` and shorter forms, which are MM:SS and D-HH[:MM].

    Raises:
        ValueError: the text has another form.
    """
    days, dash, clock = text.rpartition("-")
    numbers = [int(number) for number in clock.split(":")]
    if dash:
        numbers += [0] * (3 - len(numbers))
    elif len(numbers) == 1:
        numbers.append(0)
    hours, minutes, rest = [0] * (3 - len(numbers)) + numbers
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest
