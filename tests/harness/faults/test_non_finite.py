"""A trial that leaves a batch out is killed before and after it did so."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.config.schema import TrialConfig
from harness.config.serialisation import to_yaml
from harness.data.batches import BatchOrder, DrawOrder
from harness.data.datasets import load_data_set
from tests.support.processes.killed_trials import STEPS, TINY, ForkServer, recorded_metrics

BAD_STEPS = (3, 9)


@pytest.mark.slow
def test_skipped_steps_survive_a_kill_at_every_step(
    forks: ForkServer, trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = trial_config("sana", *TINY, "train.on_non_finite=skip")
    images = len(load_data_set(config.data).train.labels)
    order = DrawOrder(images, config.train.batch_size, config.seed, False)
    bad = [next(iter(BatchOrder(order, step, step + 1)))[0].image for step in BAD_STEPS]
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))

    def task(name: str) -> dict[str, object]:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        log, config = str(folder / "log.txt"), str(path)
        return {"log": log, "config": config, "folder": str(folder), "bad_images": bad}

    whole = forks.run(task("undisturbed"))
    assert whole.code == 0, (tmp_path / "undisturbed" / "log.txt").read_text()
    assert whole.reports > STEPS
    weights = (tmp_path / "undisturbed" / "ema.safetensors").read_bytes()
    metrics = recorded_metrics(tmp_path / "undisturbed")
    assert [metrics["skipped_steps", step] for step in BAD_STEPS] == [1, 2]
    for after in range(1, whole.reports, 2):
        name = f"killed{after}"
        assert forks.run(task(name), kill_after=after).code == -signal.SIGKILL
        assert forks.run(task(name)).code == 0, (tmp_path / name / "log.txt").read_text()
        assert (tmp_path / name / "ema.safetensors").read_bytes() == weights
        assert recorded_metrics(tmp_path / name) == metrics
