"""Whether a partition can ever give what is asked for, found before anything is submitted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.cluster.slurm.queue import ask
from harness.config.cluster import SlurmCluster, seconds_of
from models.errors import UserError

_FORMAT = "%P|%l|%D|%c|%m|%G"
_GPUS = re.compile(r"(?:^|,)gpu(?::[^:,(]+)?:(\d+)")
_MIB = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}


@dataclass(frozen=True)
class NodeGroup:
    """Equal nodes of one partition."""

    partition: str
    default: bool
    minutes: float
    """The longest job; infinite where there is no limit."""
    nodes: int
    cpus: int
    """Of each node, as are the next two."""
    mebibytes: int
    gpus: int

    def suits(self, config: SlurmCluster) -> bool:
        """Whether one of these nodes can run its part of a trial."""
        return (
            self.cpus >= config.cpus_per_task * config.tasks_per_node
            and self.mebibytes >= mebibytes_of(config.memory)
            and self.gpus >= (config.gpus_per_node or 0)
        )


def check_request(config: SlurmCluster) -> None:
    """Ask SLURM for its partitions, and compare.

    Raises:
        SlurmError: `sinfo` gives no answer.
        UserError: the request can never be met, with the largest that can.
    """
    # Hidden partitions can be used all the same.
    text = ask(
        ["sinfo", "--all", "--noheader", "--exact", f"--format={_FORMAT}"], config.command_timeout
    )
    problem = problem_of(config, parse_partitions(text))
    if problem is not None:
        raise UserError(problem)


def parse_partitions(text: str) -> tuple[NodeGroup, ...]:
    """The groups in `sinfo`'s output of our format."""
    groups = []
    for line in text.splitlines():
        name, limit, nodes, cpus, memory, gres = line.strip().split("|", 5)
        gpus = sum(int(count) for count in _GPUS.findall(gres))
        number = re.compile(r"\d+")
        groups.append(
            NodeGroup(
                partition=name.rstrip("*"),
                default=name.endswith("*"),
                minutes=_minutes(limit),
                nodes=int(nodes),
                cpus=int(number.findall(cpus)[0]),
                mebibytes=int(number.findall(memory)[0]),
                gpus=gpus,
            )
        )
    return tuple(groups)


def problem_of(config: SlurmCluster, groups: Sequence[NodeGroup]) -> str | None:
    """Why no partition of those asked for can run a trial, in one line; None where one can."""
    known = sorted({group.partition for group in groups})
    if config.partition is None:
        chosen = [group for group in groups if group.default]
    else:
        wanted = config.partition.split(",")
        for name in wanted:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                return (
                    f"cluster.partition: this cluster has no partition {name!r}{hint}; it has "
                    f"{', '.join(known) or 'none'}"
                )
        chosen = [group for group in groups if group.partition in wanted]
    if not chosen:
        return None  # no default partition: sbatch itself says what to do
    problems = [
        _problem_in(config, [group for group in chosen if group.partition == name])
        for name in dict.fromkeys(group.partition for group in chosen)
    ]
    return None if None in problems else problems[0]


def mebibytes_of(memory: str | None) -> float:
    """A size as SLURM reads it: MiB where no unit is named."""
    if memory is None:
        return 0
    number, unit = re.fullmatch(r"(\d+)([KMGT]?)B?", memory).groups()  # type: ignore[union-attr]
    return int(number) * _MIB[unit or "M"]


def _problem_in(config: SlurmCluster, groups: Sequence[NodeGroup]) -> str | None:
    where = f"partition {groups[0].partition}"
    longest = groups[0].minutes
    if config.minutes > longest:
        return (
            f"cluster.time is {config.time} ({config.minutes} min), but {where} allows "
            f"{longest:.0f} min at most"
        )
    gpus = max(group.gpus for group in groups)
    if (config.gpus_per_node or 0) > gpus:
        return f"cluster.gpus_per_node is {config.gpus_per_node}, but no node of {where} has " + (
            f"more than {gpus}" if gpus else "a GPU"
        )
    cpus = max(group.cpus for group in groups)
    if config.cpus_per_task * config.tasks_per_node > cpus:
        return (
            f"cluster.cpus_per_task x cluster.tasks_per_node is {config.cpus_per_task} x "
            f"{config.tasks_per_node}, but no node of {where} has more than {cpus} CPUs"
        )
    memory = max(group.mebibytes for group in groups)
    if mebibytes_of(config.memory) > memory:
        return (
            f"cluster.memory is {config.memory}, but no node of {where} has more than {memory} MB"
        )
    suitable = sum(group.nodes for group in groups if group.suits(config))
    if config.nodes > suitable:
        total = sum(group.nodes for group in groups)
        return (
            f"cluster.nodes is {config.nodes}, but {where} has {total} node(s), {suitable} of them "
            "with the CPUs, memory and GPUs asked for"
        )
    return None


def _minutes(limit: str) -> float:
    try:
        return seconds_of(limit) / 60
    except ValueError:
        return float("inf")
