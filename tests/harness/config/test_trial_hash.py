from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.config.schema import TrialConfig
from harness.config.serialisation import flatten, to_plain
from harness.config.trial_hash import training_hash, trial_hash

if TYPE_CHECKING:
    from tests.harness.conftest import Tree

WITHOUT_EFFECT = {
    "data.path",
    "data.manifest",
    "data.latents",
    "data.autoencoder",
    "data.workers",
    "train.device",
    "train.checkpoint_every",
    "train.log_every",
    "train.strategy",
    "train.accumulate",
    "train.activation_checkpointing",
    "train.compile",
    "train.most_skips",
    "sample.batch_size",
    "evaluate.batch_size",
    "evaluate.extractor_weights",
}
CHANGES = {
    "seed": 1,
    "data.name": "cifar10",
    "data.path": "elsewhere",
    "data.manifest": "elsewhere",
    "data.latents": "elsewhere",
    "data.autoencoder": "elsewhere",
    "data.content": "0123456789abcdef",
    "data.downsampling": 2,
    "data.resolution": 16,
    "data.held_out": 50,
    "data.horizontal_flip": True,
    "data.workers": 1,
    "model.depth": 5,
    "model.width": 192,
    "model.heads": 4,
    "model.patch_size": 2,
    "model.feedforward": "mix",
    "model.mlp_ratio": 3.0,
    "model.match_parameters_of": "dydila",
    "model.positions": "none",
    "model.qk_norm": True,
    "model.label_dropout": 0.2,
    "model.sum_precision": "bf16",
    "model.value_convolution.size": 3,
    "model.value_convolution.initialization": "zero",
    "attention.kernel": "relu",
    "attention.n_kernels": 4,
    "attention.lambda_init": 0.5,
    "objective.logit_mean": 0.5,
    "train.steps": 11,
    "train.batch_size": 7,
    "train.learning_rate": 0.5,
    "train.factor_learning_rate": 10.0,
    "train.warmup_steps": 3,
    "train.betas": [0.8, 0.9],
    "train.weight_decay": 0.5,
    "train.gradient_clip": 0.5,
    "train.ema_decay": 0.5,
    "train.ema_start": "initial",
    "train.precision": "32-true",
    "train.validate_every": 3,
    "train.validation_samples": 30,
    "train.validation_samples_every": 3,
    "train.best_by": "validation_loss",
    "train.on_non_finite": "skip",
    "train.most_skips": 3,
    "train.strategy": "fsdp",
    "train.accumulate": 2,
    "train.activation_checkpointing": True,
    "train.compile": True,
    "train.device": "cpu",
    "train.checkpoint_every": 3,
    "train.log_every": 3,
    "sample.sampler": "flow_heun",
    "sample.steps": 3,
    "sample.guidance_scale": 1.25,
    "sample.guidance_channels": 3,
    "sample.labels": "balanced",
    "sample.grid_images": 3,
    "sample.weights": "best",
    "sample.batch_size": 3,
    "evaluate.extractor": "inception",
    "evaluate.extractor_weights": "elsewhere",
    "evaluate.extractor_size": 224,
    "evaluate.samples": 30,
    "evaluate.inception_splits": 3,
    "evaluate.probe_images": 3,
    "evaluate.reference_images": 30,
    "evaluate.batch_size": 3,
}
"""One other value for every key that has one; the tests below see that no key is missing."""

ONLY_WITH: dict[str, dict[str, Any]] = {
    "data.manifest": {"data.name": "images"},
    "data.latents": {"data.name": "images"},
    "data.downsampling": {"data.name": "images", "data.latents": "somewhere"},
    "train.validation_samples_every": {"train.validation_samples": 30},
    "sample.weights": {"train.best_by": "validation_loss"},
    "evaluate.extractor_weights": {"evaluate.extractor": "inception"},
    "evaluate.extractor_size": {
        "evaluate.extractor": "torch:resnet18",
        "evaluate.extractor_weights": "elsewhere",
    },
}
"""What else must be set for a key to be allowed."""

OF_NAMES = {"model.size", "attention.name", "objective.name"}


@pytest.fixture
def config(tree: Tree) -> TrialConfig:
    return tree.load().trials[0].config


def _changed(config: TrialConfig, changes: dict[str, Any]) -> TrialConfig:
    plain = to_plain(config)
    for key, value in changes.items():
        section = plain
        *path, name = key.split(".")
        for part in path:
            section = section[part]
        assert section[name] != value
        section[name] = value
    return TrialConfig.model_validate(plain)


def test_every_key_of_the_schema_is_put_to_the_test(config: TrialConfig) -> None:
    keys = {key for key in flatten(config) if not key.startswith(("attention.", "objective."))}
    assert keys - OF_NAMES <= set(CHANGES)


@pytest.mark.parametrize("key", CHANGES)
def test_the_hash_changes_with_all_that_can_change_a_result_and_nothing_else(
    config: TrialConfig, key: str
) -> None:
    config = _changed(config, ONLY_WITH.get(key, {}))
    other = _changed(config, {key: CHANGES[key]})
    section = key.partition(".")[0]
    effective = key not in WITHOUT_EFFECT
    assert (trial_hash(other) != trial_hash(config)) == effective
    trains = effective and section not in ("sample", "evaluate")
    assert (training_hash(other) != training_hash(config)) == trains


def test_the_hash_is_sha256_of_canonical_json(config: TrialConfig) -> None:
    """Computed a second time, by hand."""
    plain = to_plain(config)
    for key in WITHOUT_EFFECT:
        section, name = key.split(".")
        del plain[section][name]
    added_later = {
        "data.content": None,
        "data.downsampling": 1,
        "model.sum_precision": "float32",
        "train.factor_learning_rate": 1.0,
        "train.validation_samples": 0,
        "train.validation_samples_every": None,
        "train.best_by": None,
        "train.ema_start": "first_step",
        "train.on_non_finite": "stop",
        "sample.weights": "last",
        "evaluate.extractor_size": None,
    }
    for key, neutral in added_later.items():
        section, name = key.split(".")
        assert plain[section].pop(name) == neutral
    for keys, digest in [
        (list(plain), trial_hash(config)),
        (["seed", "data", "model", "attention", "objective", "train"], training_hash(config)),
    ]:
        fields = {key: plain[key] for key in keys}
        text = json.dumps({"fields": fields, "version": 2}, sort_keys=True, separators=(",", ":"))
        assert digest == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_comments_order_and_spelling_in_the_files_leave_the_hash_alone(tree: Tree) -> None:
    before = [trial.hash for trial in tree.load().trials]
    assert before == [trial.hash for trial in tree.load("train.log_every=3").trials]
    tree.write(
        "scale/small.yaml",
        "# a comment\nmodel.mlp_ratio: 4\ntrain.weight_decay: -0.0\ntrain: {gradient_clip: 1,\n"
        "  steps: 0xA, learning_rate: 0.1e-3}\nextends: ../base.yaml # another\n",
    )
    tree.write(
        "ablation/x.yaml",
        "variants:\n  full: {attention.gamma_init: 3}\n  plain: {'attention': {\"name\": sana}}\n"
        "seeds: [0, 1]\nbaseline: plain\nquestion: Another?\n",
    )
    assert before == [trial.hash for trial in tree.load().trials]


def test_a_default_that_is_written_out_leaves_the_hash_alone(config: TrialConfig) -> None:
    written_out = TrialConfig.model_validate(to_plain(config))
    assert trial_hash(written_out) == trial_hash(config)


def test_the_ablation_and_the_variants_name_leave_the_hash_alone(tree: Tree) -> None:
    tree.write(
        "ablation/z.yaml", "question: q\nbaseline: other\nseeds: [1]\nvariants: {other: {}}\n"
    )
    assert tree.load(name="z").trials[0].hash == tree.load().trials[2].hash


def test_the_hash_is_the_same_in_every_process(tree: Tree) -> None:
    code = (
        "import pathlib, sys; from harness.config.load import load_ablation\n"
        "ablation = load_ablation('x', scale='small', seeds=None, overrides=[],"
        " experiments_dir=pathlib.Path(sys.argv[1]))\n"
        "print(*[t.hash + t.training_hash for t in ablation.trials])"
    )
    repository = Path(__file__).parents[3]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tree.root)],
            cwd=repository,
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("0", "4242")
    ]
    expected = [trial.hash + trial.training_hash for trial in tree.load().trials]
    assert [process.communicate()[0].split() for process in processes] == [expected] * 2
