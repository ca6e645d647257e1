from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from harness.config.mistakes import ConfigError
from harness.config.serialisation import flatten, from_yaml_file, to_plain, to_yaml
from harness.config.trial_hash import trial_hash

if TYPE_CHECKING:
    from tests.harness.conftest import Tree


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["train.learning_rate=1.2345678901234567e-17", "train.betas=[1e-300, 0.1]"],
        ["objective={name: ddpm}", "sample.sampler=ddim", "model.size=S"],
        *(
            [f"data.path='{text}'"]
            for text in (
                "1e-4", "off", "null", "", "~", "0o17", "0x1f", "true", "3", "a: b", "#x", " ",
                "\u00e9t\u00e9/\u6f22", "C:\\x", "'", "-", "2026-01-01", "x\ty", "12e03", ".5",
            )
            if "'" not in text
        ),
        ["data.path=\"line\\nbreak\\e\\u2028\""],
    ],
)  # fmt: skip
def test_a_configuration_comes_back_from_yaml_as_it_was(tree: Tree, overrides: list[str]) -> None:
    for trial in tree.load(*overrides).trials:
        path = tree.write("config.yaml", to_yaml(trial.config))
        read = from_yaml_file(path)
        assert read == trial.config
        assert trial_hash(read) == trial.hash


def test_the_yaml_is_plain_yaml_to_other_readers(tree: Tree) -> None:
    config = tree.load().trials[0].config
    assert yaml.safe_load(to_yaml(config)) == to_plain(config)


def test_flat_parameters_are_dotted_scalars(tree: Tree) -> None:
    flat = flatten(tree.load("train.learning_rate=1e-3").trials[1].config)
    assert flat["train.learning_rate"] == 1e-3
    assert flat["train.betas"] == "[0.9, 0.999]"
    assert flat["model.value_convolution.size"] == 5
    assert flat["attention.name"] == "sana"
    assert flat["data.path"] is None
    assert flat["seed"] == 0
    assert all(isinstance(value, str | int | float | bool | None) for value in flat.values())


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("seed: 0", "seed: -1", "config.yaml:1: seed: got -1; expected "),
        ("seed: 0", "seed: 0\nseed: 0", "config.yaml:2: seed: duplicate key, first on line 1"),
        ("seed: 0", "sed: 0", "config.yaml:1: seed: missing key"),
    ],
)
def test_a_spoilt_file_is_refused(tree: Tree, old: str, new: str, line: str) -> None:
    text = to_yaml(tree.load().trials[0].config)
    path = tree.write("../config.yaml", text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        from_yaml_file(path)
    assert str(caught.value).startswith(line)
