"""`evaluate` in steps of a SLURM job, started by `srun` as users type it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import main
from tests.support.slurm.private_cluster import PrivateCluster
from tests.support.stand_ins.digit_images import write_digits

pytestmark = pytest.mark.slurm

IMAGES = 24


@pytest.fixture(scope="module", autouse=True)
def one_thread_each() -> None:
    """The last bits of a convolution depend on the number of threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real digits as images, in two folders."""
    return write_digits(tmp_path_factory.mktemp("images"), IMAGES, IMAGES)


def words(folder: Path, out: Path) -> list[str]:
    return ["evaluate", "--samples", str(folder / "samples"), "--reference", str(folder / "real"),
            "--extractor", "efficientnet_lite0", "--batch-size", "8", "--splits", "2",
            "--resamples", "0", "--device", "cpu", "--json", str(out)]  # fmt: skip


@pytest.fixture(scope="module")
def figures(folder: Path) -> dict[str, Any]:
    """What one process finds outside of SLURM."""
    assert main(words(folder, folder / "alone.json")) == 0
    return json.loads((folder / "alone.json").read_text())["figures"]


@pytest.mark.parametrize("options", [("--ntasks=2",), ("--nodes=2", "--ntasks-per-node=1")])
def test_tasks_of_one_step_share_the_extraction(
    idle_cluster: PrivateCluster,
    folder: Path,
    figures: dict[str, Any],
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    out = tmp_path / "step.json"
    command = [sys.executable, "-m", "harness", *words(folder, out)]
    printed = idle_cluster.run("srun", *options, *command, timeout=200)
    assert printed.count(f"samples: {IMAGES} of 8x8") == 1
    assert json.loads(out.read_text())["figures"] == pytest.approx(figures, rel=1e-10)


def test_a_shell_of_an_allocation_with_several_tasks_is_one_process(
    idle_cluster: PrivateCluster, folder: Path, figures: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "shell.json"
    command = [sys.executable, "-m", "harness", *words(folder, out)]
    idle_cluster.run("salloc", "--quiet", "--nodes=2", "--ntasks=2", *command, timeout=200)
    assert json.loads(out.read_text())["figures"] == figures
