from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config
from safetensors.torch import load_file

from harness.config.load import load_ablation
from harness.config.schema import TrialConfig
from harness.config.serialisation import to_plain
from harness.machine.environment import EXPERIMENTS
from harness.processes.progress import ignore_progress
from harness.training.build import build_backbone
from harness.training.hardware import compile_blocks
from models.errors import UserError
from tests.support.ranks import trainings

SHAPE = (1, 8, 8)
SCALES = EXPERIMENTS / "scale"


@pytest.fixture
def fresh_compiler() -> None:
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
def test_a_missing_compiler_is_said_in_one_line(
    trial_config: Callable[..., TrialConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # What was compiled before must not be found again.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    backbone = build_backbone(trial_config("sana"), SHAPE, 10)
    expected = r"needs a C\+\+ compiler .*no-such-compiler.*train\.compile=false"
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(UserError, match=expected) as error,
    ):
        compile_blocks(backbone, torch.device("cpu"))
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_blocks_have_the_curves_and_names_of_others(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    small = (
        "train.steps=6",
        "train.batch_size=8",
        "train.log_every=1",
        "train.validate_every=3",
        "train.device=cpu",
        "model.depth=2",
        "model.width=32",
        "data.held_out=20",
        "evaluate.probe_images=0",
    )
    cases = {}
    for name in ("plain", "compiled"):
        config = trial_config("dydila", *small, f"train.compile={str(name == 'compiled').lower()}")
        attention = config.attention.model_copy(update={"load_balance_weight": 0.1})
        config = config.model_copy(update={"attention": attention})
        cases[name] = (to_plain(config), str(tmp_path / name))
    found = trainings.train_all({"cases": cases}, ignore_progress)
    plain, compiled = found["plain"]["curves"], found["compiled"]["curves"]
    assert "routing/usage_entropy" in compiled
    apart = trainings.differences(plain, compiled)
    assert max(apart.values()) < 1e-3, apart
    weights = [load_file(tmp_path / name / "ema.safetensors") for name in cases]
    assert weights[0].keys() == weights[1].keys()
    states = [
        torch.load(tmp_path / name / "checkpoints" / "step-00000006.ckpt", weights_only=True)
        for name in cases
    ]
    assert states[0]["state_dict"].keys() == states[1]["state_dict"].keys()


def one_scale_a_shape() -> list[str]:
    """Scales whose blocks are of the same shape are compiled once."""
    found: dict[tuple[int, ...], str] = {}
    for path in sorted(SCALES.glob("*.yaml")):
        ablation = load_ablation(
            "baselines", scale=path.stem, seeds=1, overrides=[], experiments_dir=EXPERIMENTS
        )
        config = ablation.trials[0].config
        model = config.model
        side = config.data.side // model.patch_size
        shape = (model.width, model.heads, side, model.value_convolution.size)
        found.setdefault(shape, path.stem)
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("scale", one_scale_a_shape())
def test_a_compiled_block_of_every_scales_shape_is_the_plain_one(
    scale: str, subprocess_environment: dict[str, Any]
) -> None:
    command = [sys.executable, "-m", "tests.support.processes.compiled_block", scale]
    done = subprocess.run(
        command, env=subprocess_environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    output, gradient = map(float, done.stdout.split()[-2:])
    assert output < 1e-4
    assert gradient < 1e-2
