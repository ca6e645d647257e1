"""Every YAML that ships can be loaded, and says what it should."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import torch

from harness.cli.listing import list_files
from harness.config.layers import names
from harness.config.load import load_ablation, load_cluster
from harness.config.mistakes import Mistake
from harness.config.schema import TrialConfig
from harness.config.sections import (
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    SampleConfig,
    TrainConfig,
)
from harness.config.serialisation import flatten
from harness.config.validation import all_fields
from harness.config.yaml_source import Scalar, read_yaml
from harness.training.build import build_backbone

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
ABLATIONS = names("ablation", EXPERIMENTS)
SCALES = names("scale", EXPERIMENTS)
ADDED_LATER = {
    f"{section}.{name}"
    for section, fields in (
        ("data", DataConfig),
        ("model", ModelConfig),
        ("train", TrainConfig),
        ("sample", SampleConfig),
        ("evaluate", EvaluateConfig),
    )
    for name, field in fields.model_fields.items()
    if not field.is_required()
}
"""Keys whose value in the schema is what older trials did."""
DYDILA: dict[str, Scalar] = {"attention.name": "dydila"}
NO_CONVOLUTION: dict[str, Scalar] = {"model.value_convolution.size": 0}
SMALL_CONVOLUTION: dict[str, Scalar] = {"model.value_convolution.size": 3}
CONVOLUTION: dict[str, Scalar] = {"model.value_convolution.size": 5}
FROM_ZERO: dict[str, Scalar] = {"model.value_convolution.initialization": "zero"}
FROM_RANDOM: dict[str, Scalar] = {"model.value_convolution.initialization": "random"}
DIT: dict[str, Scalar] = {
    "attention.name": "softmax",
    "data.horizontal_flip": True,
    "data.resolution": 256,
    "data.downsampling": 8,
    "model.size": "S",
    "model.depth": 12,
    "model.width": 384,
    "model.heads": 6,
    "model.patch_size": 2,
    "model.feedforward": "mlp",
    "model.mlp_ratio": 4.0,
    "model.positions": "sincos",
    "model.qk_norm": False,
    "model.label_dropout": 0.1,
    "model.value_convolution.size": 0,
    "objective.name": "ddpm",
    "objective.steps": 1000,
    "objective.beta_start": 1e-4,
    "objective.beta_end": 0.02,
    "train.steps": 400_000,
    "train.batch_size": 256,
    "train.learning_rate": 1e-4,
    "train.warmup_steps": 0,
    "train.weight_decay": 0.0,
    "train.gradient_clip": 0.0,
    "train.ema_decay": 0.9999,
    "train.ema_start": "initial",
    "sample.sampler": "ddpm",
    "sample.steps": 250,
    "sample.guidance_scale": 1.0,
    "sample.labels": "uniform",
    "evaluate.extractor": "inception",
    "evaluate.samples": 50_000,
    "evaluate.reference_images": None,
}
CHANGES: dict[str, dict[str, dict[str, Scalar]]] = {
    "static_kernel": {
        "dydila": {},
        "static_kernel": {"attention.kernel": "static"},
        "no_kernel": {"attention.kernel": "relu"},
    },
    "static_differential": {
        "dydila": {},
        "static_differential": {"attention.differential": "static"},
        "no_differential": {"attention.differential": "off"},
    },
    "build_up": {
        "plain": {},
        "convolution": CONVOLUTION,
        "kernel": {**DYDILA, **CONVOLUTION, "attention.differential": "off"},
        "full": {**DYDILA, **CONVOLUTION},
    },
    "n_projectors": {
        "n_projectors_1": {"attention.n_projectors": 1},
        "n_projectors_2": {"attention.n_projectors": 2},
        "n_projectors_3": {},
        "n_projectors_6": {"attention.n_projectors": 6},
    },
    "n_kernels": {
        "n_kernels_1": {"attention.n_kernels": 1},
        "n_kernels_3": {"attention.n_kernels": 3},
        "n_kernels_9": {},
        "n_kernels_18": {"attention.n_kernels": 18},
    },
    "n_differentials": {
        "n_differentials_1": {"attention.n_differentials": 1},
        "n_differentials_3": {"attention.n_differentials": 3},
        "n_differentials_9": {},
        "n_differentials_18": {"attention.n_differentials": 18},
    },
    "gamma_init": {
        "gamma_1": {"attention.gamma_init": 1.0},
        "gamma_2": {"attention.gamma_init": 2.0},
        "gamma_3": {},
        "gamma_5": {"attention.gamma_init": 5.0},
        "gamma_3_spread_2": {"attention.gamma_spread": 2.0},
    },
    "lambda_init": {
        "lambda_0": {"attention.lambda_init": 0.0},
        "lambda_0p01": {},
        "lambda_0p1": {"attention.lambda_init": 0.1},
        "lambda_0p5": {"attention.lambda_init": 0.5},
        "lambda_0p1_spread_0p1": {"attention.lambda_init": 0.1, "attention.lambda_spread": 0.1},
    },
    "normalizer": {
        "similarity": {},
        "absolute": {"attention.normalizer": "absolute"},
        "unit": {"attention.normalizer": "unit"},
        "difference": {"attention.normalizer": "difference"},
        "none": {"attention.normalizer": "none"},
        "rms": {"attention.normalizer": "rms"},
    },
    "value_convolution": {
        "sana-none": NO_CONVOLUTION,
        "sana-3x3": SMALL_CONVOLUTION,
        "sana-5x5": {},
        "sana-5x5_zero": FROM_ZERO,
        "sana-5x5_random": FROM_RANDOM,
        "dydila-none": {**DYDILA, **NO_CONVOLUTION},
        "dydila-3x3": {**DYDILA, **SMALL_CONVOLUTION},
        "dydila-5x5": DYDILA,
        "dydila-5x5_zero": {**DYDILA, **FROM_ZERO},
        "dydila-5x5_random": {**DYDILA, **FROM_RANDOM},
    },
}
"""By ablation and variant: all fields that differ from the ablation's baseline."""


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_loads_at_every_scale(name: str, scale: str) -> None:
    ablation = load_ablation(
        name, scale=scale, seeds=None, overrides=[], experiments_dir=EXPERIMENTS
    )
    assert len(ablation.trials) == len({trial.folder for trial in ablation.trials})
    assert ablation.baseline in ablation.variants


def test_the_promised_ablations_compare_what_they_promise() -> None:
    promised = {
        "no_differential": ("dydila", "no_differential", "sana"),
        "no_projection": ("dydila", "no_projection", "sana"),
        "no_kernel": ("dydila", "no_kernel", "sana"),
        "baselines": ("softmax", "sana", "dydila"),
    }
    loaded = {
        name: load_ablation(
            name, scale="digits", seeds=None, overrides=[], experiments_dir=EXPERIMENTS
        )
        for name in promised
    }
    assert {name: ablation.variants for name, ablation in loaded.items()} == promised
    assert all({trial.seed for trial in a.trials} == {0, 1} for a in loaded.values())
    switches = {
        trial.variant: trial.config.attention.model_dump()
        for ablation in loaded.values()
        for trial in ablation.trials
    }
    parts = ("projection", "kernel", "differential")
    assert {
        variant: tuple(fields[part] for part in parts)
        for variant, fields in switches.items()
        if fields["name"] == "dydila"
    } == {
        "dydila": ("dynamic", "dynamic", "dynamic"),
        "no_projection": ("static", "dynamic", "dynamic"),
        "no_kernel": ("dynamic", "relu", "dynamic"),
        "no_differential": ("dynamic", "dynamic", "off"),
    }


def test_the_factorial_has_every_combination_that_means_something_once() -> None:
    ablation = load_ablation(
        "factorial", scale="digits", seeds=1, overrides=[], experiments_dir=EXPERIMENTS
    )
    found = [trial.config.attention.model_dump() for trial in ablation.trials]
    assert {fields["name"] for fields in found} == {"dydila"}
    combinations = [
        (
            # With the differential off nothing uses the projection.
            None if fields["differential"] == "off" else fields["projection"],
            fields["kernel"],
            fields["differential"],
        )
        for fields in found
    ]
    kernels = ("dynamic", "static", "relu")
    assert sorted(combinations, key=str) == sorted(
        [
            *itertools.product(("dynamic", "static"), kernels, ("dynamic", "static")),
            *itertools.product((None,), kernels, ("off",)),
        ],
        key=str,
    )


@pytest.mark.parametrize("name", CHANGES)
def test_a_variant_changes_what_it_says_and_nothing_else(name: str) -> None:
    ablation = load_ablation(
        name, scale="digits", seeds=1, overrides=[], experiments_dir=EXPERIMENTS
    )
    configs = {trial.variant: trial.config for trial in ablation.trials}
    baseline = configs[ablation.baseline]
    assert {variant: changes(baseline, c) for variant, c in configs.items()} == CHANGES[name]


def changes(baseline: TrialConfig, variant: TrialConfig) -> dict[str, Scalar]:
    """The fields that differ, with the variant's values; another attention is its name, and those
    of its fields that are not at their defaults."""
    before, after = flatten(baseline), flatten(variant)
    if before["attention.name"] != after["attention.name"]:
        defaults = {"attention": type(variant.attention)()}
        before = flatten(baseline.model_copy(update=defaults))
        before["attention.name"] = baseline.attention.name
    assert before.keys() == after.keys()
    return {key: value for key, value in after.items() if value != before[key]}


def test_a_variant_shared_by_several_ablations_is_the_same_trial() -> None:
    hashes: dict[tuple[str, int], set[str]] = {}
    for name in ABLATIONS:
        ablation = load_ablation(
            name, scale="digits", seeds=None, overrides=[], experiments_dir=EXPERIMENTS
        )
        for trial in ablation.trials:
            hashes.setdefault((trial.variant, trial.seed), set()).add(trial.hash)
    for variant in ("dydila", "sana"):
        assert {len(hashes[variant, seed]) for seed in (0, 1)} == {1}


def test_the_base_holds_every_key_that_has_no_value_in_the_schema() -> None:
    mistakes: list[Mistake] = []
    base = read_yaml(EXPERIMENTS / "base.yaml", mistakes)
    assert base is not None
    assert not mistakes
    named_by_size = {"model.depth", "model.width", "model.heads"}
    for key in set(all_fields(TrialConfig)) - named_by_size:
        inside, _, name = key.partition(".")
        if inside in ("attention", "objective") and name not in ("", "name"):
            continue
        if key in ADDED_LATER:
            continue
        assert base.find(key.split(".")) is not None, key


def test_at_the_scale_of_dits_protocol_softmax_is_dit() -> None:
    """The values are those of the paper's section 4 and of its public code."""
    ablation = load_ablation(
        "baselines", scale="dit_protocol", seeds=1, overrides=[], experiments_dir=EXPERIMENTS
    )
    config = next(trial.config for trial in ablation.trials if trial.variant == "softmax")
    flat = flatten(config)
    assert {key: flat[key] for key in DIT} == DIT
    with torch.device("meta"):
        network = build_backbone(config, (4, 32, 32), 1000)
    trained = sum(parameter.numel() for parameter in network.parameters())
    assert round(trained / 1e6) == 33  # table 4


@pytest.mark.parametrize("scale", ["sub_in", "imagenet", "dit_protocol"])
def test_the_big_scales_measure_fid(scale: str) -> None:
    ablation = load_ablation(
        "baselines", scale=scale, seeds=1, overrides=[], experiments_dir=EXPERIMENTS
    )
    assert {trial.config.evaluate.extractor for trial in ablation.trials} == {"inception"}
    assert {trial.config.evaluate.samples for trial in ablation.trials} == {50000}


def test_the_cluster_loads() -> None:
    for name in names("cluster", EXPERIMENTS):
        assert load_cluster(name, [], EXPERIMENTS)


def test_every_entry_of_the_catalogue_has_its_line_and_no_error() -> None:
    listed = [*list_files("ablation", EXPERIMENTS), *list_files("scale", EXPERIMENTS)]
    assert [entry for entry in listed if entry.error or not entry.about] == []


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_opens_with_its_question(path: Path) -> None:
    header = re.match(r"(?:#.*\n)+", path.read_text(encoding="utf-8"))
    assert header is not None
    assert header[0].startswith("# Question: ")
    if path.parent.name in ("ablation", "scale"):
        for word in ("# Command:", "# Time:", "# Found:"):
            assert word in header[0]


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_comparison_with_and_without_a_difference_says_that_a_gain_comes_with_it(
    name: str,
) -> None:
    ablation = load_ablation(
        name, scale="digits", seeds=1, overrides=[], experiments_dir=EXPERIMENTS
    )
    fields = [flatten(trial.config) for trial in ablation.trials]
    differs = [each.get("attention.differential", "off") != "off" for each in fields]
    if any(differs) and not all(differs):
        header = (EXPERIMENTS / "ablation" / f"{name}.yaml").read_text(encoding="utf-8")
        assert "signed gain" in header.split("\nquestion:")[0]
