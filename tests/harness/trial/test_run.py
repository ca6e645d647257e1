"""What one process trained, two draw samples from and measure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from harness.config.schema import TrialConfig
from harness.config.serialisation import to_plain
from harness.processes.progress import Progress
from harness.processes.signals import StopRequest
from harness.tracking.journal import Journal
from harness.tracking.store import Store
from harness.trial.run import run_trial_job
from harness.trial.spec import RESULT, TrialSpec
from harness.vocabulary import names
from harness.vocabulary.names import SAMPLES

TINY = (
    "train.steps=2",
    "train.batch_size=8",
    "train.checkpoint_every=2",
    "train.precision=32-true",
    "model.depth=1",
    "sample.steps=3",
    "sample.batch_size=4",
    "evaluate.samples=14",
    "evaluate.batch_size=4",
    "evaluate.inception_splits=2",
    "evaluate.reference_images=21",
    "evaluate.probe_images=0",
)


SPEEDS = (
    names.TRAIN_IMAGES_PER_SECOND,
    names.SAMPLING_IMAGES_PER_SECOND,
)


@pytest.mark.slow
def test_samples_and_figures_are_those_of_one_process(
    trial_config: Callable[..., TrialConfig],
    new_store: Callable[[Path], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    store_uri = new_store(tmp_path)
    Store(store_uri, tmp_path).prepare("smoke", print)
    journal = Journal(tmp_path / "parent")
    journal.start(experiment="smoke", run_name="parent", tags={}, params={})
    journal.close()
    trial = tmp_path / "trial"

    def run(processes: int) -> tuple[bytes, dict[str, Any], list[Progress]]:
        seen: list[Progress] = []
        spec = TrialSpec(
            config=to_plain(trial_config("sana", *TINY)),
            variant="sana",
            scale="smoke",
            hash="0123456789ab",
            folder=str(trial),
            references=str(tmp_path / f"references{processes}"),
            parent=str(tmp_path / "parent"),
            store_uri=store_uri,
            root=str(tmp_path),
            threads=processes,
            side_by_side=1,
            processes=processes,
        )
        trial.mkdir(exist_ok=True)
        result = run_trial_job({"job": "trial", "spec": asdict(spec)}, seen.append, StopRequest())
        return (trial / SAMPLES).read_bytes(), result, seen

    samples, result, _ = run(1)
    assert json.loads((trial / RESULT).read_text())["metrics"] == result["metrics"]
    for name in (SAMPLES, "sampled.json", RESULT):
        (trial / name).unlink()
    again, measured, seen = run(2)
    assert again == samples
    assert Progress("sample", 14, 14) in seen
    assert measured["identity"] == result["identity"]
    assert measured["metrics"].keys() == result["metrics"].keys()
    # Each of two processes holds half of a batch.
    memory = [one["metrics"].pop(names.TRAINING_MEMORY) for one in (measured, result)]
    assert memory[0] < memory[1]
    for name, value in result["metrics"].items():
        if name not in SPEEDS:
            assert measured["metrics"][name] == pytest.approx(value, rel=1e-10), name
