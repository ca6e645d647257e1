"""What every module of a data set offers, and that a new one is one new file."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from harness.config.discovery import data_sets
from harness.config.sections import DataConfig
from harness.data import datasets
from harness.data.datasets import data_content, load_data_set
from models.errors import UserError

MINE = """
import torch
from harness.data.datasets.base import hash_of_facts, hold_out
from harness.data.images import LabelledImages

FIELDS = ("manifest",)

def check(config):
    pass

def content(config):
    return hash_of_facts([config.resolution, config.manifest])

def load(config):
    side = config.resolution
    images = torch.arange(6 * side * side, dtype=torch.uint8).reshape(6, 1, side, side)
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    return hold_out(LabelledImages(images, labels, ("a", "b")), config.held_out, "mine")
"""


def config(name: str, **changes: object) -> DataConfig:
    values = {
        "name": name,
        "path": None,
        "resolution": 8,
        "held_out": 2,
        "horizontal_flip": False,
        "workers": 0,
    }
    return DataConfig.model_validate({**values, **changes})


def test_every_data_set_has_the_three_functions() -> None:
    assert {"cifar10", "digits", "images"} <= set(data_sets())
    for offer in data_sets().values():
        module = importlib.import_module(offer.module)
        assert callable(module.load)
        assert callable(module.check)
        assert callable(module.content)


def test_a_new_data_set_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    folders = datasets.__path__
    folders.append(str(tmp_path))
    try:
        mine = config("mine", manifest="list.json")
        assert data_content(mine) != data_content(config("mine"))
        found = load_data_set(mine)
    finally:
        folders.remove(str(tmp_path))
        sys.modules.pop("harness.data.datasets.mine", None)
    assert found.title == "mine"
    assert sorted(found.held_out.labels.tolist()) == [0, 1]
    with pytest.raises(ValueError, match="one of cifar10, digits, images"):
        config("mine")


def test_another_content_than_asked_for_is_refused() -> None:
    with pytest.raises(UserError, match=r"data.content is 0123, .* have None"):
        data_content(config("digits", content="0123"))
