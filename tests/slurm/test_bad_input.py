"""A request that the cluster cannot meet: one line, exit code 2, nothing submitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.slurm.private_cluster import PrivateCluster
from tests.support.slurm.sweep import Sweep

pytestmark = pytest.mark.slurm


@pytest.fixture
def fresh(idle_cluster: PrivateCluster, experiments: Path, store: str, tmp_path: Path) -> Sweep:
    return Sweep(idle_cluster, experiments, tmp_path / "runs", store, "one")


def assert_refused(sweep: Sweep, captured: pytest.CaptureFixture[str], said: str) -> None:
    (line,) = captured.readouterr().err.splitlines()
    assert said in line
    assert sweep.cluster.active_jobs() == []
    assert not list(sweep.runs.rglob("*.slurm.json"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("cluster.partition=hihg", "did you mean high?"),
        ("cluster.nodes=3", "cluster.nodes is 3, but partition low has 2 node(s)"),
        ("cluster.gpus_per_node=1", "no node of partition low has a GPU"),
        ("cluster.cpus_per_task=3", "no node of partition low has more than 2 CPUs"),
        ("cluster.memory=100GB", "no node of partition low has more than 8000 MB"),
        ("cluster.constraint=nonsense", "sbatch refused the jobs, so none was submitted"),
    ],
)
def test_what_the_cluster_does_not_have(
    fresh: Sweep, capfd: pytest.CaptureFixture[str], override: str, said: str
) -> None:
    assert fresh.call("ablation", "--detach", override) == 2
    assert_refused(fresh, capfd, said)


def test_a_machine_without_sbatch(
    fresh: Sweep, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = fresh.cluster.environment["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fresh.call("ablation", "--detach") == 2
    monkeypatch.setenv("PATH", path)
    assert_refused(fresh, capfd, "sbatch is not installed here")


def test_a_controller_that_does_not_answer(
    fresh: Sweep, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    nowhere = tmp_path / "slurm.conf"
    text = fresh.cluster.configuration.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("SlurmctldPort=")]
    nowhere.write_text("\n".join([*lines, "SlurmctldPort=1", "MessageTimeout=2"]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fresh.cluster.variables, "SLURM_CONF", str(nowhere))
        assert fresh.call("ablation", "--detach", "cluster.command_timeout=20") == 2
    assert_refused(fresh, capfd, "sinfo")
