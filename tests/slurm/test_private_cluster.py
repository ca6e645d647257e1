"""The private cluster behaves as a real one where the other tests rely on it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.support.slurm.private_cluster import (
    HIGH_PRIORITY,
    NODES,
    PrivateCluster,
    private_cluster,
)
from tests.support.slurm.waiting import wait_for

pytestmark = pytest.mark.slurm


def submit(cluster: PrivateCluster, log: Path, command: str, *options: str) -> str:
    """The id of a job that appends to `log`."""
    where = (f"--output={log}", "--open-mode=append")
    return cluster.run("sbatch", "--parsable", *where, *options, "--wrap", command).strip()


def test_a_task_runs_on_each_node(idle_cluster: PrivateCluster, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    job = submit(idle_cluster, log, "srun printenv SLURMD_NODENAME MASTER_ADDR", "--nodes=2")
    wait_for(lambda: idle_cluster.job_states()[job] == "COMPLETED")
    assert sorted(log.read_text().split()) == ["127.0.0.1", "127.0.0.1", *NODES]


def test_a_preempted_job_gets_its_signal_and_is_not_requeued_if_it_ends_by_itself(
    idle_cluster: PrivateCluster, tmp_path: Path
) -> None:
    low, high = tmp_path / "low.txt", tmp_path / "high.txt"
    script = "trap 'echo saved; exit 0' USR1; echo started; sleep 300 & wait"
    preempted = submit(idle_cluster, low, script, "--exclusive", "-N2", "--signal=B:USR1@5")
    wait_for(lambda: low.exists() and "started" in low.read_text())
    submit(idle_cluster, high, "echo first", "--exclusive", "-N2", "-p", HIGH_PRIORITY)
    wait_for(lambda: high.exists() and "first" in high.read_text())
    assert low.read_text().startswith("started\nsaved\n")
    assert idle_cluster.job_states()[preempted] == "COMPLETED"


def test_the_job_of_a_node_that_dies_is_requeued_to_the_other(
    idle_cluster: PrivateCluster, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    job = submit(idle_cluster, log, "echo $SLURMD_NODENAME; sleep 300", "-w", "n1")
    wait_for(lambda: log.exists() and log.read_text() == "n1\n")
    idle_cluster.kill_node("n1")
    idle_cluster.run("scontrol", "update", "node=n1", "state=down", "reason=test")
    wait_for(lambda: idle_cluster.job_states()[job] == "PENDING")
    idle_cluster.start_node("n1")
    idle_cluster.run("scontrol", "update", "node=n1", "state=resume")
    wait_for(lambda: log.read_text() == "n1\nn1\n")


def test_nothing_is_left_of_a_cluster_that_ended_with_a_running_job(tmp_path: Path) -> None:
    def processes(folder: Path) -> list[psutil.Process]:
        return [
            process
            for process in psutil.process_iter(["environ"])
            if str(folder) in (process.info["environ"] or {}).get("SLURM_CONF", "")
        ]

    with private_cluster() as second:
        log = tmp_path / "log.txt"
        submit(second, log, "echo started; srun sleep 300", "--nodes=2")
        wait_for(lambda: log.exists() and "started" in log.read_text())
        folder = second.folder
        assert processes(folder)
    assert not processes(folder)
    assert not folder.exists()
