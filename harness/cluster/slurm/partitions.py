"""Whether a partition can ever give what is asked for, found before anything is submitted.

`sbatch --test-only` does not tell: it accepts a time over a partition's limit, which a job would
wait for without end, refuses nodes that are only drained for now, and names no number.
"""

from __future__ import annotations

import difflib
import operator
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

    @property
    def has(self) -> tuple[int, int, int]:
        """GPUs, CPUs and memory in MiB of each node."""
        return self.gpus, self.cpus, self.mebibytes


def check_request(config: SlurmCluster) -> None:
    """Raises a UserError where a request can never be met, with the largest that can, and a
    SlurmError where `sinfo` gives no answer."""
    # Hidden partitions can be used all the same.
    command = ["sinfo", "--all", "--noheader", "--exact", f"--format={_FORMAT}"]
    problem = problem_of(config, parse_partitions(ask(command, config.command_timeout)))
    if problem is not None:
        raise UserError(problem)


def parse_partitions(text: str) -> tuple[NodeGroup, ...]:
    """The groups in `sinfo`'s output of our format."""
    groups = []
    for line in text.splitlines():
        name, limit, nodes, cpus, memory, gres = line.strip().split("|", 5)
        groups.append(
            NodeGroup(
                partition=name.rstrip("*"),
                default=name.endswith("*"),
                minutes=_minutes(limit),
                nodes=int(nodes),
                # A plus stands for "and more, on some of them".
                cpus=int(cpus.rstrip("+")),
                mebibytes=int(memory.rstrip("+")),
                gpus=sum(map(int, _GPUS.findall(gres))),
            )
        )
    return tuple(groups)


def problem_of(config: SlurmCluster, groups: Sequence[NodeGroup]) -> str | None:
    """Why no partition of those asked for can run a trial, in one line; None where one can."""
    by_name: dict[str, list[NodeGroup]] = {}
    for group in groups:
        by_name.setdefault(group.partition, []).append(group)
    if config.partition is None:
        # Where there is no default partition, sbatch itself says what to do.
        wanted = [name for name, nodes in by_name.items() if nodes[0].default]
    else:
        wanted = config.partition.split(",")
    for name in wanted:
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            return (
                f"cluster.partition: this cluster has no partition {name!r}{hint}; it has "
                f"{', '.join(sorted(by_name)) or 'none'}"
            )
    problems = [_problem_in(config, by_name[name]) for name in wanted]
    return problems[0] if problems and None not in problems else None


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
    cpus = config.cpus_per_task * config.tasks_per_node
    cores = f"{config.cpus_per_task} x {config.tasks_per_node}"
    asked = (
        (config.gpus_per_node or 0, f"gpus_per_node is {config.gpus_per_node}", "GPUs"),
        (cpus, f"cpus_per_task x cluster.tasks_per_node is {cores}", "CPUs"),
        (mebibytes_of(config.memory), f"memory is {config.memory}", "MB"),
    )
    for number, (wanted, field, unit) in enumerate(asked):
        most = max(group.has[number] for group in groups)
        if wanted > most:
            found = f"more than {most} {unit}" if most else "a GPU"
            return f"cluster.{field}, but no node of {where} has {found}"
    least = [wanted for wanted, _, _ in asked]
    suitable = sum(group.nodes for group in groups if all(map(operator.ge, group.has, least)))
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
