"""A private SLURM for the tests of this folder, and a sweep that ran on it undisturbed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.slurm.private_cluster import PrivateCluster, missing_programs, private_cluster
from tests.support.slurm.sweep import Sweep, write_experiments

REQUIRED = "HARNESS_TEST_SLURM"
"""Set by `make test-slurm`: a machine without SLURM then fails, instead of testing nothing."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[PrivateCluster]:
    """Two idle nodes. A test leaves no job behind."""
    if missing := missing_programs():
        reason = f"needs {', '.join(missing)} (Debian: apt install slurm-wlm munge)"
        if os.environ.get(REQUIRED):
            pytest.fail(reason)
        pytest.skip(reason)
    with private_cluster() as started:
        yield started


@pytest.fixture
def idle_cluster(cluster: PrivateCluster) -> Iterator[PrivateCluster]:
    """The same, with nothing of the test before on it and no job left after this one."""
    cluster.wait_idle()
    yield cluster
    cluster.cancel_all()


@pytest.fixture(scope="session")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep") / "experiments"
    write_experiments(folder)
    return folder


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of all sweeps, since MLflow takes seconds to make one. Each has runs of its own in it."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(scope="session")
def undisturbed(
    cluster: PrivateCluster,
    experiments: Path,
    store: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Sweep:
    """A trial that ran from its beginning to its end in one job."""
    sweep = Sweep(cluster, experiments, tmp_path_factory.mktemp("undisturbed"), store, "one")
    assert sweep.call("ablation", "--detach") == 0
    sweep.trial().wait_finished()
    assert sweep.trial().requeues == 0
    cluster.wait_idle()
    return sweep


@pytest.fixture
def sweep(idle_cluster: PrivateCluster, undisturbed: Sweep, tmp_path: Path) -> Sweep:
    """The same trial, not yet submitted."""
    return undisturbed.anew(tmp_path / "runs")
