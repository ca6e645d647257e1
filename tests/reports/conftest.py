"""Ablations in a real SQLite store, as harness.vocabulary.names names things."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from harness.vocabulary import names
from reports.load import AblationRuns, Floor

IDENTITY: dict[str, Any] = {
    "extractor": "efficientnet_lite0",
    "extractor_weights_sha256": "0a1b2c3d4e5f" + "7" * 52,
    "resize": "bilinear to 224",
    "samples": 500,
    "reference": "digits-train-9f (1500 images)",
    "objective": "flow",
    "sampler": "flow_euler",
    "steps": 50,
    "guidance_scale": 1.5,
    "guidance_channels": "all",
}
FLOOR_IDENTITY: dict[str, Any] = {
    key: IDENTITY[key] for key in ("extractor", "extractor_weights_sha256", "samples", "reference")
}


@dataclass
class StoredAblation:
    """Writes one ablation; every test has a scale, hence an MLflow experiment, of its own."""

    uri: str
    scale: str
    folder: Path
    ablation: str = "question_one"
    listed: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = MlflowClient(self.uri)
        self.experiment = self.client.create_experiment(
            self.scale, artifact_location=(self.folder / "mlruns").as_uri()
        )

    def trial(
        self,
        variant: str,
        seed: int,
        metrics: Mapping[str, float],
        *,
        identity: Mapping[str, Any] | None = IDENTITY,
        status: str | None = "FINISHED",
        tags: Mapping[str, str] | None = None,
        curve: Sequence[tuple[int, float]] = (),
        grid: Mapping[str, np.ndarray] | None = None,
    ) -> str:
        """A trial's run, listed under the ablation. Status None leaves it running."""
        run = self.client.create_run(
            self.experiment,
            tags={
                names.TAG_KIND: names.KIND_TRIAL,
                names.TAG_VARIANT: variant,
                names.TAG_SEED: str(seed),
                names.TAG_DEVICE: "cpu, 2 cores",
                names.TAG_GIT_COMMIT: "0123456789abcdef0123456789abcdef01234567",
                names.TAG_GIT_DIRTY: "false",
                names.TAG_PRECISION: "32-true",
                names.TAG_VERSIONS: json.dumps({"torch": "2.14.1", "mlflow": "3.17.2"}),
                **({names.TAG_METRIC_IDENTITY: json.dumps(identity)} if identity else {}),
                **(tags or {}),
            },
        )
        run_id = str(run.info.run_id)
        now = int(time.time() * 1000)
        points = [Metric(names.VALIDATION_LOSS, loss, now, step) for step, loss in curve]
        points += [Metric(key, value, now, 1000) for key, value in metrics.items()]
        self.client.log_batch(run_id, metrics=points)
        if grid is not None:
            path = self.folder / names.ARTIFACT_GRID_IMAGES
            np.savez(path, **grid)  # type: ignore[arg-type]
            self.client.log_artifact(run_id, str(path))
        if status is not None:
            self.client.set_terminated(run_id, status)
        self.list_trial(variant, seed, run_id)
        return run_id

    def list_trial(self, variant: str, seed: int, run_id: str | None) -> None:
        self.listed.append(
            {"variant": variant, "seed": seed, "hash": f"{variant}{seed}", "run_id": run_id}
        )

    def finish(
        self,
        baseline: str,
        *,
        question: str = "Does it help?",
        floor: Mapping[str, float] | None = None,
        floor_identity: Mapping[str, Any] = FLOOR_IDENTITY,
        ablation: str | None = None,
    ) -> str:
        """The ablation's own run, which lists all trials written so far."""
        run = self.client.create_run(
            self.experiment,
            tags={
                names.TAG_KIND: names.KIND_ABLATION,
                names.TAG_ABLATION: ablation or self.ablation,
                names.TAG_SCALE: self.scale,
                names.TAG_QUESTION: question,
                names.TAG_BASELINE: baseline,
            },
        )
        run_id = str(run.info.run_id)
        listing = {
            "trials": self.listed,
            "floor": dict(floor or {}),
            "floor_identity": dict(floor_identity),
        }
        self.client.log_text(run_id, json.dumps(listing), names.ARTIFACT_TRIALS)
        self.client.set_terminated(run_id)
        return run_id


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory: pytest.TempPathFactory, new_store: Callable[[Path], str]) -> str:
    """One store for all tests here: MLflow takes a while to open one."""
    return new_store(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture
def stored(store_uri: str, tmp_path: Path, request: pytest.FixtureRequest) -> StoredAblation:
    return StoredAblation(store_uri, f"scale of {request.node.nodeid}", tmp_path)


Figures = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Variant to seed to metric to value."""


def _build_runs(figures: Figures, **changes: Any) -> AblationRuns:
    """An ablation as `load_ablation` gives it, without a store; the first variant is baseline."""
    tags = changes.pop("tags", {})
    rows = [
        {
            "variant": variant,
            "seed": seed,
            "run_id": f"run-{variant}-{seed}",
            names.TAG_DEVICE: "cpu, 2 cores",
            **tags.get((variant, seed), {}),
            **metrics,
        }
        for variant, seeds in figures.items()
        for seed, metrics in seeds.items()
    ]
    metrics = dict.fromkeys(
        key for seeds in figures.values() for of_seed in seeds.values() for key in of_seed
    )
    runs = AblationRuns(
        tracking_uri="sqlite:///nowhere.db",
        ablation="question_one",
        scale="small",
        question="Does it help?",
        baseline=next(iter(figures)),
        variants=tuple(figures),
        trials=pd.DataFrame(rows),
        metrics=tuple(metrics),
        missing=(),
        identity=IDENTITY,
        floor=Floor(values={}, identity={}),
    )
    return replace(runs, **changes)


@pytest.fixture
def build_runs() -> Callable[..., AblationRuns]:
    return _build_runs
