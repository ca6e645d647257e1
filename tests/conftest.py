"""Fixtures that several parts of the tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from harness.config.load import load_ablation
from harness.config.schema import TrialConfig
from harness.machine.environment import EXPERIMENTS, ROOT
from harness.tracking.store import Store

pytest_plugins = ["tests.support.stand_ins.networks"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let warnings pass in slow tests: compilers and schedulers that they run warn of themselves,
    in other words on other machines, and would fail where nothing of ours is wrong."""
    for item in items:
        if item.get_closest_marker("slow") or item.get_closest_marker("slurm"):
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """The tensors are small: threads that wait for one another cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def trial_config() -> Callable[..., TrialConfig]:
    """`trial_config("sana", "train.steps=5", seed=1)`: a shipped variant at the smoke scale."""

    def build(variant: str, *overrides: str, seed: int = 0) -> TrialConfig:
        name = "baselines" if variant in ("softmax", "sana", "dydila") else variant
        ablation = load_ablation(
            name, scale="smoke", seeds=seed + 1, overrides=overrides, experiments_dir=EXPERIMENTS
        )
        return next(t.config for t in ablation.trials if (t.variant, t.seed) == (variant, seed))

    return build


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images that are not part of the repository; tests that need them skip without."""
    folder = Path(os.environ.get("HARNESS_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the real images in {folder}, which is not there")
    return folder


@pytest.fixture(scope="session")
def subprocess_environment() -> dict[str, Any]:
    """For child processes: one thread each, and this repository's packages."""
    single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return {**os.environ, **single, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def blank_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables and nothing else; making one takes seconds, so that all
    processes of pytest-xdist share it.

    Its folder's name is odd on purpose: MLflow passes the path through several kinds of URL.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "a b # é 50%"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            making = folder.with_name(f"{folder.name} in the making")
            Store(f"sqlite:///{making / 'mlflow.db'}", making).client()
            making.rename(folder)
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def new_store(blank_database: Path) -> Callable[[Path], str]:
    """`new_store(folder)`: the address of a new MLflow store, `mlflow.db` in that folder."""

    def make(folder: Path) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(blank_database, folder / "mlflow.db")
        return f"sqlite:///{folder / 'mlflow.db'}"

    return make
