"""Checkpoints that a power failure, a full disk or a wrong hand left in pieces."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from harness.config.serialisation import to_yaml
from tests.support.processes.killed_trials import CHECKPOINT_EVERY, STEPS, ForkServer, Place

NEWEST, BEFORE = STEPS, STEPS - CHECKPOINT_EVERY


@pytest.fixture(scope="module")
def config_file(undisturbed: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(to_yaml(undisturbed.config))
    return path


class Interrupted:
    """A training that had saved its last checkpoint and nothing after it."""

    def __init__(self, folder: Path, config: Path, undisturbed: Place, forks: ForkServer) -> None:
        self.folder = folder
        self.config = config
        self.undisturbed = undisturbed
        self.forks = forks
        self.log = folder / "log.txt"
        shutil.copytree(undisturbed.trial / "checkpoints", folder / "checkpoints")

    def checkpoint(self, step: int, suffix: str = ".ckpt") -> Path:
        return self.folder / "checkpoints" / f"step-{step:08d}{suffix}"

    def resumes_from(self) -> int | None:
        """Train on to the end, which must be that of the undisturbed trial."""
        task = {"log": str(self.log), "config": str(self.config), "folder": str(self.folder)}
        assert self.forks.run(task).code == 0, self.log.read_text()
        weights = (self.folder / "ema.safetensors").read_bytes()
        assert weights == (self.undisturbed.trial / "ema.safetensors").read_bytes()
        resumed: int | None = json.loads((self.folder / "trained.json").read_text())[
            "resumed_from_step"
        ]
        return resumed


@pytest.fixture
def interrupted(
    tmp_path: Path, config_file: Path, undisturbed: Place, forks: ForkServer
) -> Interrupted:
    return Interrupted(tmp_path, config_file, undisturbed, forks)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_checkpoint_cut_at_any_length_is_passed_over(interrupted: Interrupted, seed: int) -> None:
    newest = interrupted.checkpoint(NEWEST)
    os.truncate(newest, random.Random(seed).randrange(newest.stat().st_size))
    assert interrupted.resumes_from() == BEFORE
    assert f"{newest} is damaged or incomplete" in interrupted.log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, b"", b"0123", b"\xff\xfe"])
def test_a_checkpoint_with_a_bad_checksum_is_passed_over(
    interrupted: Interrupted, content: bytes | None
) -> None:
    checksum = interrupted.checkpoint(NEWEST, ".sha256")
    checksum.unlink()
    if content is not None:
        checksum.write_bytes(content)
    assert interrupted.resumes_from() == BEFORE
    assert "damaged or incomplete" in interrupted.log.read_text()


@pytest.mark.slow
def test_training_begins_anew_where_no_checkpoint_is_whole(interrupted: Interrupted) -> None:
    for step in (NEWEST, BEFORE):
        os.truncate(interrupted.checkpoint(step), 1000)
    assert interrupted.resumes_from() is None
    assert interrupted.log.read_text().count("damaged or incomplete") == 2


@pytest.mark.slow
def test_a_damaged_checkpoint_does_not_push_out_a_whole_one(interrupted: Interrupted) -> None:
    """Also where another interval was chosen since, so that nothing writes over the damaged one."""
    os.truncate(interrupted.checkpoint(NEWEST), 1000)
    interrupted.checkpoint(NEWEST).rename(interrupted.checkpoint(NEWEST + 1))
    assert interrupted.resumes_from() == BEFORE
    left = sorted(path.name for path in (interrupted.folder / "checkpoints").glob("*.ckpt"))
    assert left == [f"step-{step:08d}.ckpt" for step in (BEFORE, NEWEST)]


@pytest.mark.slow
@pytest.mark.parametrize("newest_is", ["older", "in the future"])
def test_the_age_of_files_decides_nothing(interrupted: Interrupted, newest_is: str) -> None:
    for path in (interrupted.folder / "checkpoints").iterdir():
        late = (path.stem == f"step-{NEWEST:08d}") == (newest_is == "in the future")
        when = 4_000_000_000 if late else 1_000_000_000
        os.utime(path, (when, when))
    assert interrupted.resumes_from() == NEWEST
