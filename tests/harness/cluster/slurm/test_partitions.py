"""`sinfo`'s output as real clusters print it, against requests."""

from __future__ import annotations

import math

import pytest

from harness.cluster.slurm.partitions import mebibytes_of, parse_partitions, problem_of
from harness.config.cluster import SlurmCluster
from harness.config.load import load_cluster
from harness.machine.environment import EXPERIMENTS

LISTING = """\
cpu*|1-00:00:00|40|64|257000|(null)
gpu|2-00:00:00|8|128|1031000|gpu:a100:4(S:0-3)
gpu|2-00:00:00|2|128+|2063000+|gpu:h100:8(S:0-7),gpu:h100_slice:2
debug|30:00|2|16|64000|gpu:2
long|infinite|4|32|128000|(null)
"""


def request(*overrides: str) -> SlurmCluster:
    config = load_cluster("slurm", overrides, EXPERIMENTS)
    assert isinstance(config, SlurmCluster)
    return config


def problem(*overrides: str) -> str | None:
    words = [f"cluster.{override}" for override in overrides]
    return problem_of(request(*words), parse_partitions(LISTING))


def test_partitions_are_read() -> None:
    groups = parse_partitions(LISTING)
    assert [group.partition for group in groups] == ["cpu", "gpu", "gpu", "debug", "long"]
    assert [group.default for group in groups] == [True, False, False, False, False]
    assert [group.gpus for group in groups] == [0, 4, 10, 2, 0]
    assert [group.minutes for group in groups] == [1440, 2880, 2880, 30, math.inf]
    assert groups[2].cpus == 128
    assert groups[2].mebibytes == 2063000


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["partition=gpu", "gpus_per_node=4", "nodes=10"],
        ["partition=gpu", "gpus_per_node=8", "nodes=2", "tasks_per_node=8", "cpus_per_task=16"],
        ["partition=long", "time=30-00:00:00"],
        ["partition='debug,gpu'", "gpus_per_node=8"],
        ["partition=debug", "time=30"],
    ],
)
def test_what_a_partition_has_can_be_asked_for(overrides: list[str]) -> None:
    assert problem(*overrides) is None


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["partition=gpus"], "no partition 'gpus' (did you mean gpu?); it has cpu, debug, gpu"),
        (["gpus_per_node=1"], "no node of partition cpu has a GPU"),
        (["partition=gpu", "gpus_per_node=16"], "no node of partition gpu has more than 10"),
        (["partition=gpu", "gpus_per_node=8", "nodes=3"], "10 node(s), 2 of them with"),
        (["tasks_per_node=8", "cpus_per_task=16"], "is 16 x 8, but no node of partition cpu"),
        (["memory=512G"], "no node of partition cpu has more than 257000 MB"),
        (["nodes=41"], "partition cpu has 40 node(s)"),
        (["partition=debug", "time=31"], "partition debug allows 30 min at most"),
        (["time=1-00:01:00"], "partition cpu allows 1440 min at most"),
        (["partition='debug,gp'"], "no partition 'gp'"),
    ],
)
def test_what_no_node_has_is_told_in_one_line(overrides: list[str], expected: str) -> None:
    found = problem(*overrides)
    assert found is not None
    assert expected in found
    assert "\n" not in found


def test_a_cluster_without_a_default_partition_is_left_to_sbatch() -> None:
    assert problem_of(request("cluster.nodes=99"), parse_partitions("a|10:00|1|1|1|(null)")) is None


@pytest.mark.parametrize(
    ("text", "expected"), [("512", 512), ("2G", 2048), ("2GB", 2048), ("1T", 2**20), ("2048K", 2)]
)
def test_sizes_are_read_as_slurm_reads_them(text: str, expected: float) -> None:
    assert mebibytes_of(text) == expected
