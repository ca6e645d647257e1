"""Two processes that train together measure validation samples as one does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from harness.config.schema import TrialConfig
from harness.config.serialisation import to_yaml
from harness.processes.progress import ignore_progress
from harness.processes.ranks import run_local_ranks
from harness.training.validation import read_best

TARGET = "tests.support.ranks.validations:train_and_validate"


def curves(folder: Path) -> dict[tuple[str, int], float]:
    """The figures of validation samples in a journal, by name and step."""
    events = [json.loads(line) for line in (folder / "tracking.jsonl").read_text().splitlines()]
    return {
        (key, event["step"]): value
        for event in events
        if event["event"] == "metrics"
        for key, value in event["values"].items()
        if key.startswith("validation/")
    }


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_give_the_curves_and_the_best_of_one(
    strategy: str,
    trial_config: Callable[..., TrialConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = trial_config(
        "sana",
        "train.steps=4",
        "train.batch_size=8",
        "train.checkpoint_every=4",
        "train.validation_samples=12",
        "train.validation_samples_every=2",
        "train.best_by=fd",
        "train.learning_rate=0.01",
        "train.warmup_steps=0",
        f"train.strategy={strategy}",
        "model.depth=1",
        "sample.steps=2",
        "evaluate.inception_splits=2",
    )
    found = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        (folder / "config.yaml").write_text(to_yaml(config))
        payload = {"config": str(folder / "config.yaml"), "folder": str(folder)}
        told = run_local_ranks(TARGET, payload, processes, ignore_progress)
        assert told == {"processes": processes}
        found[processes] = curves(folder)
        assert len(list((folder / "validation_samples").iterdir())) == 2
    assert found[2].keys() == found[1].keys()
    assert {step for _, step in found[1]} == {2, 4}
    for (key, step), value in found[1].items():
        if key.startswith("validation/fd"):
            assert found[2][key, step] == pytest.approx(value, rel=1e-3)
    alone, together = (read_best(tmp_path / name) for name in "12")
    assert alone is not None
    assert together is not None
    assert alone.step == together.step
    weights = [load_file(tmp_path / name / "best.safetensors") for name in "12"]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        assert (weight - weights[1][name]).abs().max() < 1e-4, name
