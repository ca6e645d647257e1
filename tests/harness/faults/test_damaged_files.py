"""Files of a trial that a power failure, a bad disk or a wrong hand left other than they were."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.config.schema import TrialConfig
from harness.machine.files import DamagedFileError, file_digest
from harness.training.train import EMA_WEIGHTS
from harness.trial.trained import load_trained_trial
from harness.vocabulary.names import SAMPLES
from tests.support.processes.killed_trials import STEPS, ForkServer, Place

WEIGHTS, RESULT = EMA_WEIGHTS, "result.json"


@pytest.fixture
def place(undisturbed: Place, new_place: Callable[..., Place], tmp_path: Path) -> Place:
    """A copy of the undisturbed trial."""
    made = new_place(tmp_path)
    shutil.copytree(undisturbed.trial, made.trial)
    shutil.copytree(undisturbed.folder / "references", made.folder / "references")
    made.task()
    return made


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write(content: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_text(content)

    return damage


OTHER_KEYS = write('{"colour": "blue"}')
GARBAGE = write("\x00\x00 not JSON")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage", "later"),
    [
        ("trained.json", GARBAGE, (RESULT,)),
        ("trained.json", OTHER_KEYS, (RESULT, SAMPLES)),
        (WEIGHTS, flip_byte, (RESULT, SAMPLES)),
        (WEIGHTS, Path.unlink, (RESULT, SAMPLES)),
        ("sampled.json", GARBAGE, (RESULT,)),
        ("sampled.json", OTHER_KEYS, (RESULT,)),
        (SAMPLES, cut, (RESULT,)),
        (SAMPLES, flip_byte, (RESULT,)),
        (RESULT, cut, ()),
        (RESULT, OTHER_KEYS, ()),
    ],
)
def test_a_stage_whose_file_is_damaged_is_done_again_with_a_warning_and_gives_the_same(
    place: Place,
    undisturbed: Place,
    forks: ForkServer,
    name: str,
    damage: Callable[[Path], None],
    later: tuple[str, ...],
) -> None:
    """`later`: files of later stages, which a trial that has not come so far does not have."""
    for each in later:
        (place.trial / each).unlink()
    damage(place.trial / name)
    assert forks.run(place.task()).code == 0, place.log.read_text()
    assert str(place.trial / name) in place.log.read_text()
    for each in (WEIGHTS, SAMPLES):
        assert (place.trial / each).read_bytes() == (undisturbed.trial / each).read_bytes()
    mine, other = (json.loads((p.trial / RESULT).read_text()) for p in (place, undisturbed))
    assert mine["identity"] == other["identity"]
    assert mine["metrics"]["fd_efficientnet_lite0"] == other["metrics"]["fd_efficientnet_lite0"]


def rewrite(checkpoint: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Another content under a right checksum."""
    torch.save(change(torch.load(checkpoint, weights_only=True)), checkpoint)
    checkpoint.with_suffix(".sha256").write_text(file_digest(checkpoint))


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this ran",)


def widen(checkpoint: dict[str, Any]) -> dict[str, Any]:
    state = checkpoint["state_dict"]
    name = next(name for name, part in state.items() if part.ndim == 2)
    return {**checkpoint, "state_dict": {**state, name: torch.zeros(3, 5)}}


def lose_a_weight(checkpoint: dict[str, Any]) -> dict[str, Any]:
    state = dict(checkpoint["state_dict"])
    state.popitem()
    return {**checkpoint, "state_dict": state}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (widen, "is of another network"),
        (lose_a_weight, "is of another network: it lacks"),
        (lambda checkpoint: {**checkpoint, "extra": Code()}, "holds other things than weights"),
        (lambda checkpoint: [1, 2, 3], "holds other things than weights"),
        (lambda checkpoint: {**checkpoint, "loops": {}}, "holds other things than weights"),
        (lambda checkpoint: {**checkpoint, "optimizer_states": []}, "holds other things than"),
    ],
)
def test_a_checkpoint_of_something_else_is_named_with_what_to_do(
    place: Place,
    forks: ForkServer,
    change: Callable[[dict[str, Any]], Any],
    why: str,
) -> None:
    for name in ("trained.json", RESULT, SAMPLES):
        (place.trial / name).unlink()
    checkpoint = place.trial / "checkpoints" / f"step-{STEPS:08d}.ckpt"
    rewrite(checkpoint, change)
    assert forks.run(place.task()).code == 2, place.log.read_text()
    log = place.log.read_text()
    last = [line for line in log.splitlines() if line.startswith("error: ")][-1]
    assert f"{checkpoint} {why}" in last
    assert "remove it" in last
    assert "this ran" not in log


@pytest.mark.slow
def test_weights_with_a_flipped_byte_are_neither_probed_nor_exported(
    place: Place, trial_config: Callable[..., TrialConfig]
) -> None:
    load_trained_trial(str(place.trial), place.folder)
    flip_byte(place.trial / WEIGHTS)
    with pytest.raises(DamagedFileError, match=r"ema\.safetensors is damaged.*remove.*json"):
        load_trained_trial(str(place.trial), place.folder)
