"""Trials in processes of their own, small enough that dozens can be killed, and what they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.config.schema import TrialConfig
from harness.config.serialisation import to_plain
from harness.machine.environment import ROOT
from harness.tracking.journal import Journal
from harness.tracking.store import Store
from harness.trial.spec import TrialSpec
from harness.vocabulary import names

STEPS = 12
CHECKPOINT_EVERY = 4
TINY = (
    f"train.steps={STEPS}",
    f"train.checkpoint_every={CHECKPOINT_EVERY}",
    "train.batch_size=16",
    "train.validate_every=3",
    "train.log_every=1",
    "model.depth=1",
    "model.width=32",
    "model.heads=2",
    "data.held_out=16",
    "sample.sampler=flow_euler",
    "sample.steps=2",
    "sample.grid_images=1",
    "evaluate.samples=16",
    "evaluate.reference_images=32",
    "evaluate.inception_splits=1",
    "evaluate.probe_images=1",
)
SPEEDS = {
    names.TRAIN_IMAGES_PER_SECOND,
    names.SAMPLING_IMAGES_PER_SECOND,
}
"""What differs from run to run."""


@dataclass(frozen=True)
class Outcome:
    """How a process ended: 0, 2 for a UserError, 1 for another exception, or minus a signal."""

    code: int
    reports: int


class ForkServer:
    """See `fork_server.py`."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.processes.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def run(
        self,
        task: dict[str, Any],
        kill_after: int | None = None,
        delay: float = 0.0,
        held_until: Callable[[], bool] | None = None,
    ) -> Outcome:
        """Run a task to its end, or kill its process without warning.

        Args:
            task: see `fork_server.py`.
            kill_after: how many reports to wait for; None lets the task end.
            delay: seconds between the last of these and the kill.
            held_until: true when the kill may come; the task gets no further than these reports.
        """
        if held_until is not None:
            task = {**task, "hold_after": kill_after}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        reports = 0
        pid = 0
        for line in self._process.stdout:
            word, _, value = line.strip().partition(" ")
            if word == "ended":
                return Outcome(int(value), reports)
            if word == "started":
                pid = int(value)
            reports += word == "report"
            if reports == kill_after and pid:
                time.sleep(delay)
                deadline = time.monotonic() + 300
                while held_until is not None and not held_until():
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                os.kill(pid, signal.SIGKILL)
                kill_after = None
        raise AssertionError("the fork server ended")

    def close(self) -> None:
        self._process.communicate()


@dataclass(frozen=True)
class Place:
    """A folder with one trial and an MLflow store."""

    folder: Path
    config: TrialConfig
    store_uri: str

    @property
    def trial(self) -> Path:
        return self.folder / "runs" / "smoke" / "sana" / "seed0-0123456789ab"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def store(self) -> Store:
        return Store(self.store_uri, self.folder)

    def task(self) -> dict[str, Any]:
        """The trial as a task of the fork server."""
        parent = self.folder / "parent"
        if not parent.exists():
            journal = Journal(parent)
            journal.start(experiment="smoke", run_name="parent", tags={}, params={})
            journal.close()
        spec = TrialSpec(
            config=to_plain(self.config),
            variant="sana",
            scale="smoke",
            hash="0123456789ab",
            folder=str(self.trial),
            references=str(self.folder / "references"),
            parent=str(parent),
            store_uri=self.store_uri,
            root=str(self.folder),
            threads=1,
            side_by_side=1,
        )
        return {"log": str(self.log), "spec": asdict(spec)}


def recorded_metrics(trial: Path) -> dict[tuple[str, int], float]:
    """Every metric of a journal by name and step. Fails where one is recorded twice."""
    found: list[tuple[tuple[str, int], float]] = []
    for event in read_journal(trial):
        if event["event"] == "metrics":
            found += [((name, event["step"]), value) for name, value in event["values"].items()]
    repeated = [key for key, count in Counter(key for key, _ in found).items() if count > 1]
    assert repeated == []
    return {key: value for key, value in found if key[0] not in SPEEDS}


def read_journal(trial: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (trial / "tracking.jsonl").read_text().splitlines()]


def assert_same_trial(actual: Place, expected: Place) -> None:
    """Weights, samples and metrics bit by bit, one run in MLflow, and nothing left lying about."""
    for name in ("ema.safetensors", "samples.npz"):
        assert (actual.trial / name).read_bytes() == (expected.trial / name).read_bytes()
    assert recorded_metrics(actual.trial) == recorded_metrics(expected.trial)
    assert [e["event"] for e in read_journal(actual.trial)].count("begin") == 1
    assert sorted(path.name for path in (actual.trial / "checkpoints").iterdir()) == sorted(
        path.name for path in (expected.trial / "checkpoints").iterdir()
    )
    assert [path.name for path in actual.trial.glob(".samples-*")] == []
    assert_one_run(actual)


def assert_one_run(place: Place) -> None:
    """MLflow has the trial once, finished, with each metric of the journal once."""
    client = place.store.client()
    experiment = place.store.experiment_id(client, "smoke")
    runs = client.search_runs([experiment], f"tags.`{names.TAG_KIND}` = '{names.KIND_TRIAL}'")
    (run,) = runs
    assert run.info.status == "FINISHED"
    sent = {}
    for name in {name for name, _ in recorded_metrics(place.trial)}:
        history = client.get_metric_history(run.info.run_id, name)
        assert len({point.step for point in history}) == len(history)
        sent.update({(name, point.step): point.value for point in history})
    assert sent == recorded_metrics(place.trial)
