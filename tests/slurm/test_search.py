"""A search whose trials are jobs, one of which is killed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import psutil
import pytest

from tests.support.slurm.private_cluster import PrivateCluster
from tests.support.slurm.sweep import SCALE, Sweep, write_experiments
from tests.support.slurm.waiting import wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(3600)]

SEARCH = """
question: Which learning rate?
base: {attention.name: sana}
space: {train.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
objective: {seeds: [0]}
pruner: none
sampler: random
"""


def test_a_search_survives_a_killed_job_and_is_not_repeated(
    idle_cluster: PrivateCluster, store: str, tmp_path: Path
) -> None:
    experiments = tmp_path / "experiments"
    write_experiments(experiments)
    (experiments / "search" / "rate.yaml").write_text(SEARCH)
    sweep = Sweep(idle_cluster, experiments, tmp_path / "runs", store, "rate")
    folder = sweep.runs / "searches" / SCALE / "rate"

    launcher = sweep.start("search", "--trials", "2")
    checkpoint = f"{SCALE}/rate/*/checkpoints/step-*.sha256"
    wait_for(lambda: any(sweep.runs.glob(checkpoint)), timeout=1200)
    running = next(sweep.runs.glob(checkpoint)).parents[1]
    psutil.Process(json.loads((running / "status.json").read_text())["pid"]).kill()
    output, _ = launcher.communicate(timeout=2000)
    assert launcher.returncode == 0, output
    assert "2 trials: 2 complete" in output

    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == [
        "COMPLETE" if row["validation_loss"] else "FAIL" for row in rows
    ]
    assert sum(bool(row["takes_the_place_of"]) for row in rows) == 1
    assert len(list(sweep.runs.glob(f"{SCALE}/rate/*/result.json"))) == 2
    trained = json.loads((running / "trained.json").read_text())
    assert trained["resumed_from_step"] is not None
    assert (folder / "best.yaml").exists()

    idle_cluster.wait_idle()
    before = len(idle_cluster.ended_jobs())
    assert sweep.call("search", "--trials", "2") == 0
    assert len(idle_cluster.ended_jobs()) == before
