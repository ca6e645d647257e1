from __future__ import annotations

from datetime import timedelta

import pytest

from harness.config.cluster import LocalCluster, SlurmCluster, seconds_of
from harness.config.load import load_cluster
from harness.config.mistakes import ConfigError
from harness.machine.environment import EXPERIMENTS


def slurm(*overrides: str) -> SlurmCluster:
    config = load_cluster("slurm", overrides, EXPERIMENTS)
    assert isinstance(config, SlurmCluster)
    return config


def test_the_launcher_decides_which_fields_there_are() -> None:
    assert isinstance(load_cluster("local", [], EXPERIMENTS), LocalCluster)
    assert slurm("cluster.partition=debug", "cluster.nodes=2").partition == "debug"
    with pytest.raises(ConfigError, match=r"cluster\.workers: unknown key"):
        slurm("cluster.workers=2")
    with pytest.raises(ConfigError, match=r"cluster\.nodes: unknown key"):
        load_cluster("local", ["cluster.nodes=2"], EXPERIMENTS)


def test_further_options_and_lines_of_shell_are_taken() -> None:
    config = slurm("cluster.additional.nodelist=node7", "cluster.setup=[module load cuda]")
    assert config.additional == {"nodelist": "node7"}
    assert config.setup == ("module load cuda",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00:30:00", timedelta(minutes=30)),
        ("12:00:00", timedelta(hours=12)),
        ("2-03:04:05", timedelta(days=2, hours=3, minutes=4, seconds=5)),
        ("30:00", timedelta(minutes=30)),
        ("5", timedelta(minutes=5)),
        ("1-12", timedelta(days=1, hours=12)),
        ("1-12:30", timedelta(days=1, hours=12, minutes=30)),
    ],
)
def test_times_are_read_as_slurm_reads_them(text: str, expected: timedelta) -> None:
    assert timedelta(seconds=seconds_of(text)) == expected


def test_a_time_limit_is_minutes_or_a_clock_time() -> None:
    assert slurm("cluster.time=90").minutes == 90
    assert slurm("cluster.time=01:30:00").minutes == 90
    assert slurm("cluster.time=00:05:30").minutes == 6


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cluster.time=soon", "HH:MM:SS"),
        ("cluster.time=0", ">= 1"),
        ("cluster.time=2", r"cluster\.signal_seconds must be less than cluster\.time"),
        ("cluster.memory=much", "a size such as 64GB"),
        ("cluster.partition='a b'", "text without spaces"),
        ("cluster.gpus_per_node=0", ">= 1"),
        ("cluster={gpus_per_node: 2, tasks_per_node: 4}", r"must not exceed.*gpus_per_node.*4 > 2"),
        ("cluster.additional.time=5", r"set cluster\.time instead"),
        ("cluster.additional.gpus_per_node=5", r"set cluster\.gpus_per_node instead"),
        ("cluster.additional.output=a", "the launcher needs its own value"),
        ("cluster.additional.exclusive=false", "true or one line"),
        ("cluster.additional.N=2", "no long option"),
        ("cluster.setup=['#SBATCH --nice']", r"cluster\.additional"),
        ("cluster.partitio=gpu", r"did you mean cluster\.partition"),
    ],
)
def test_mistakes_are_told_in_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as told:
        slurm(override)
    assert len(str(told.value).splitlines()) == 1
