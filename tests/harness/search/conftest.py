"""A small search, resolved, in a folder of its own; nothing of it trains."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.machine.environment import EXPERIMENTS
from harness.search.config import Search, SearchSpec, load_search
from harness.search.launch import spec_of

SEARCH = """\
question: Which values?
base: baselines/dydila
space:
  attention.lambda_init: {low: 1e-3, high: 1e-1, log: true}
  model.depth: {low: 1, high: 4}
objective: {seeds: [0, 1]}
pruner: {name: median, startup_trials: 2}
sampler: {name: random, seed: 5}
"""


@dataclass(frozen=True)
class Made:
    """A search file's contents and what a worker is told of them."""

    search: Search
    spec: SearchSpec


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    """`make(text, trials=3, storage=None)`."""

    def build(text: str = SEARCH, trials: int = 3, storage: str | None = None) -> Made:
        experiments = tmp_path / "experiments"
        if not experiments.exists():
            shutil.copytree(EXPERIMENTS, experiments)
        (experiments / "search" / "s.yaml").write_text(text, encoding="utf-8")
        search = load_search("s", scale="smoke", overrides=[], experiments_dir=experiments)
        store = f"sqlite:///{tmp_path / 'mlflow.db'}"
        spec = spec_of(search, trials, storage, tmp_path / "runs", store)
        return Made(search, spec)

    return build
