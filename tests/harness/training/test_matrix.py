"""Every variant and switch, on one process and on two, with each way to spend less memory or time:
two steps each have the curves of the plain training on one process."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from harness.config.schema import TrialConfig
from harness.config.serialisation import to_plain
from harness.processes.progress import ignore_progress
from models.attention import load_variant, variant_names
from tests.support.ranks import trainings

SMALL = (
    "train.steps=2",
    "train.batch_size=8",
    "train.log_every=1",
    "train.validate_every=2",
    "train.device=cpu",
    "model.depth=1",
    "model.width=32",
    "data.held_out=20",
    "evaluate.probe_images=0",
)
SWITCHES: dict[str, dict[str, Any]] = {
    "projection": {"projection": "static"},
    "relu": {"kernel": "relu"},
    "static_kernel": {"kernel": "static"},
    "static_differential": {"differential": "static"},
    "all_static": {"projection": "static", "kernel": "static", "differential": "static"},
    "no_differential": {"differential": "off"},
    **{name: {"normalizer": name} for name in ("absolute", "unit", "difference", "none", "rms")},
    "gate": {"router_gradient": "gate"},
    "shared": {"kernel_sharing_roles": "shared", "load_balance_weight": 0.1},
    "per_head": {"kernel_per_head": True, "head_dim": 16, "gamma_map": "exp"},
}
MODES = {
    "plain": (),
    "accumulate": ("train.accumulate=2",),
    "checkpointing": ("train.activation_checkpointing=true",),
    "compile": ("train.compile=true",),
}
COMPILED = ("softmax", "sana", "dydila", "shared")
"""The compiler takes up to a minute a variant, so it has these alone."""

Configure = Callable[..., TrialConfig]
Train = Callable[[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def train(trial_config: Configure, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """By where and how: what `trainings.train_all` tells of all variants and switches."""
    configs = {name: load_variant(name).config() for name in variant_names()}
    dydila = load_variant("dydila").config
    configs |= {name: dydila(**fields) for name, fields in SWITCHES.items()}

    @cache
    def run(where: str, mode: str) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp(f"{where}-{mode}")
        strategy = () if where == "alone" else (f"train.strategy={where}",)
        plain = trial_config("sana", *SMALL, *strategy, *MODES[mode])
        payload = {
            "cases": {
                name: (
                    to_plain(plain.model_copy(update={"attention": config})),
                    str(folder / name),
                )
                for name, config in configs.items()
                if mode != "compile" or name in COMPILED
            }
        }
        if where == "alone":
            torch.compiler.reset()
            return trainings.train_all(payload, ignore_progress)
        return trainings.train_on_two(payload, folder)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", ["alone", "ddp", "fsdp"])
def test_every_variant_trains_alike(where: str, mode: str, train: Train) -> None:
    found, expected = train(where, mode), train("alone", "plain")
    assert found.keys() >= set(COMPILED)
    tolerance = 1e-3 if mode == "compile" else 2e-4
    for name, trained in found.items():
        apart = trainings.differences(expected[name]["curves"], trained["curves"])
        assert max(apart.values()) < tolerance, (name, apart)
        assert len(set(trained["hashes"])) == 1, name
