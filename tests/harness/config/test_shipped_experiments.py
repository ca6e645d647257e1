"""Every YAML that ships can be loaded, and says what it should."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from harness.config.catalogue import list_ablations, list_scales, names
from harness.config.expansion import load_ablation, load_cluster
from harness.config.mistakes import Mistake
from harness.config.place import all_keys
from harness.config.schema import TrialConfig
from harness.config.sections.data import DataConfig
from harness.config.sections.evaluate import EvaluateConfig
from harness.config.sections.sample import SampleConfig
from harness.config.sections.train import TrainConfig
from harness.config.yaml_source import read_yaml

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
ABLATIONS = names("ablation", EXPERIMENTS)
SCALES = names("scale", EXPERIMENTS)
ADDED_LATER = {
    f"{section}.{name}"
    for section, fields in (
        ("data", DataConfig),
        ("train", TrainConfig),
        ("sample", SampleConfig),
        ("evaluate", EvaluateConfig),
    )
    for name, field in fields.model_fields.items()
    if not field.is_required()
}
"""Keys whose value in the schema is what older trials did."""


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
    for key in set(all_keys(TrialConfig)) - named_by_size:
        inside, _, name = key.partition(".")
        if inside in ("attention", "objective") and name not in ("", "name"):
            continue
        if key in ADDED_LATER:
            continue
        assert base.find(key.split(".")) is not None, key


def test_the_cluster_loads() -> None:
    for name in names("cluster", EXPERIMENTS):
        assert load_cluster(name, [], EXPERIMENTS)


def test_every_entry_of_the_catalogue_has_its_line_and_no_error() -> None:
    listed = [*list_ablations(EXPERIMENTS), *list_scales(EXPERIMENTS)]
    assert [entry for entry in listed if entry.error or not entry.about] == []


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_opens_with_its_question(path: Path) -> None:
    header = re.match(r"(?:#.*\n)+", path.read_text(encoding="utf-8"))
    assert header is not None
    assert header[0].startswith("# Question: ")
    if path.parent.name in ("ablation", "scale"):
        for word in ("# Command:", "# Time:", "# Found:"):
            assert word in header[0]
