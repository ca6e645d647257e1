"""Training on several processes, in micro-batches, and with activations computed twice: the same
curves as on one process. The processes are real ones, which talk over gloo."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.config.schema import TrialConfig
from harness.config.serialisation import to_plain
from harness.processes.progress import ignore_progress
from harness.training.build import check_batch
from models.errors import UserError
from tests.support.ranks import trainings

SMALL = (
    "train.steps=10",
    "train.batch_size=8",
    "train.log_every=1",
    "train.validate_every=5",
    "train.checkpoint_every=5",
    "train.device=cpu",
    "model.depth=1",
    "model.width=32",
    "data.held_out=20",
    "evaluate.probe_images=0",
)
VARIANTS = ("sana", "balanced")
TOLERANCE = 1e-4
"""Of single-precision sums in another order, after ten steps of Adam."""

Configure = Callable[..., TrialConfig]


@pytest.fixture(scope="module")
def configure(trial_config: Callable[..., TrialConfig]) -> Configure:
    def build(variant: str, *overrides: str) -> TrialConfig:
        fields = {override.partition("=")[0] for override in overrides}
        small = [setting for setting in SMALL if setting.partition("=")[0] not in fields]
        if variant != "balanced":
            return trial_config(variant, *small, *overrides)
        # With two groups of parameters in the optimizer, and parameters that several parts share.
        small += ["train.factor_learning_rate=3.0"]
        config = trial_config("dydila", *small, *overrides)
        attention = config.attention.model_copy(
            update={"load_balance_weight": 0.1, "kernel_sharing_roles": "shared"}
        )
        return config.model_copy(update={"attention": attention})

    return build


def cases(configure: Configure, folder: Path, *overrides: str) -> dict[str, Any]:
    return {
        variant: (to_plain(configure(variant, *overrides)), str(folder / variant))
        for variant in VARIANTS
    }


@pytest.fixture(scope="module")
def alone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alone")


@pytest.fixture(scope="module")
def alone(configure: Configure, alone_folder: Path) -> dict[str, Any]:
    payload = {"cases": cases(configure, alone_folder)}
    return trainings.train_all(payload, ignore_progress)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("two")
    return lambda strategy: root / strategy


Two = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def two(configure: Configure, alone: dict[str, Any], folder_of: Callable[[str], Path]) -> Two:
    """On two processes by a strategy: both variants, and the second half of a training whose first
    half one process did. FSDP comes with all that can be combined with it."""

    @cache
    def train(strategy: str) -> dict[str, Any]:
        folder = folder_of(strategy)
        half = folder / "resumed"
        first = to_plain(configure("balanced", "train.steps=5"))
        trainings.train_all({"cases": {"half": (first, str(half))}}, ignore_progress)
        (half / "trained.json").unlink()
        settings = [f"train.strategy={strategy}"]
        if strategy == "fsdp":
            settings += ["train.accumulate=2", "train.activation_checkpointing=true"]
        second = to_plain(configure("balanced", *settings))
        made = {**cases(configure, folder, *settings), "resumed": (second, str(half))}
        return trainings.train_on_two({"cases": made}, folder)

    return train


STRATEGIES = ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_have_the_curves_of_one(
    variant: str, strategy: str, alone: dict[str, Any], two: Two
) -> None:
    reference = alone[variant]["curves"]
    assert len(reference["train_loss"]) == 10
    assert ("balance_loss" in reference) == (variant == "balanced")
    assert not differences_above(TOLERANCE, reference, two(strategy)[variant]["curves"])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_averages_are_bitwise_equal_on_all_processes(variant: str, strategy: str, two: Two) -> None:
    first, second = two(strategy)[variant]["hashes"]
    assert first == second


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_written_weights_are_those_that_one_process_writes(
    strategy: str, alone_folder: Path, two: Two, folder_of: Callable[[str], Path]
) -> None:
    two(strategy)
    torch.testing.assert_close(
        load_file(folder_of(strategy) / "balanced" / "ema.safetensors"),
        load_file(alone_folder / "balanced" / "ema.safetensors"),
        rtol=TOLERANCE,
        atol=1e-6,
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_go_on_from_what_one_began(
    strategy: str, alone: dict[str, Any], two: Two, folder_of: Callable[[str], Path]
) -> None:
    resumed = two(strategy)["resumed"]["curves"]
    assert resumed_from(folder_of(strategy) / "resumed") == 5
    same_second_half(alone["balanced"]["curves"], resumed)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_process_goes_on_from_what_two_began(
    strategy: str,
    configure: Configure,
    alone: dict[str, Any],
    two: Two,
    folder_of: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    two(strategy)
    name = "step-00000005"
    (tmp_path / "checkpoints").mkdir()
    for suffix in ("ckpt", "sha256"):
        source = folder_of(strategy) / "balanced" / "checkpoints" / f"{name}.{suffix}"
        shutil.copyfile(source, tmp_path / "checkpoints" / source.name)
    found = trainings.train_all(
        {"cases": {"resumed": (to_plain(configure("balanced")), str(tmp_path))}}, ignore_progress
    )
    assert resumed_from(tmp_path) == 5
    same_second_half(alone["balanced"]["curves"], found["resumed"]["curves"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_micro_batches_have_the_curves_of_the_whole_batch(
    variant: str, configure: Configure, alone: dict[str, Any], tmp_path: Path
) -> None:
    config = configure(variant, "train.accumulate=4")
    case = {variant: (to_plain(config), str(tmp_path))}
    found = trainings.train_all({"cases": case}, ignore_progress)
    assert not differences_above(TOLERANCE, alone[variant]["curves"], found[variant]["curves"])


def test_activations_computed_twice_change_no_bit(
    configure: Configure, alone: dict[str, Any], tmp_path: Path
) -> None:
    config = configure("balanced", "train.activation_checkpointing=true")
    found = trainings.train_all(
        {"cases": {"balanced": (to_plain(config), str(tmp_path))}}, ignore_progress
    )
    assert found["balanced"] == alone["balanced"]


def test_a_batch_that_cannot_be_shared_evenly_is_refused_with_both_numbers(
    configure: Configure,
) -> None:
    settings = configure("sana", "train.accumulate=4").train
    check_batch(settings, 2)
    expected = "train.batch_size is 8 .* 3 process(es) a trial x 4 micro-batch(es)"
    with pytest.raises(UserError, match=expected.replace("(", r"\(").replace(")", r"\)")):
        check_batch(settings, 3)
    with pytest.raises(UserError, match=re.escape("train.accumulate must divide train.batch_size")):
        configure("sana", "train.accumulate=3")


def differences_above(
    tolerance: float, first: trainings.Curves, second: trainings.Curves
) -> dict[str, float]:
    found = trainings.differences(first, second)
    return {name: value for name, value in found.items() if not value <= tolerance}


def resumed_from(folder: Path) -> int | None:
    step: int | None = json.loads((folder / "trained.json").read_text())["resumed_from_step"]
    return step


def same_second_half(whole: trainings.Curves, resumed: trainings.Curves) -> None:
    """The curves of a training that was resumed after the fifth of ten steps."""
    losses = resumed["train_loss"]
    assert set(losses) >= {6, 7, 8, 9}
    assert 4 not in losses
    for name in ("train_loss", "gradient_norm", "balance_loss"):
        for step, value in resumed[name].items():
            assert value == pytest.approx(whole[name][step], rel=TOLERANCE), name
    assert resumed["validation_loss"][10] == pytest.approx(
        whole["validation_loss"][10], rel=TOLERANCE
    )
