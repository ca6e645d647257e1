"""A small experiments tree in a folder of its own, which is also the current one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.config.load import Ablation, load_ablation
from harness.config.mistakes import ConfigError

SHIPPED = Path(__file__).parents[2] / "experiments"

ABLATION = """\
question: Does it work?
baseline: full
seeds: [0, 1]
variants:
  full: {}
  plain:
    attention: {name: sana}
"""
SCALE = """\
about: small
extends: ../base.yaml
train:
  steps: 10
"""


@dataclass(frozen=True)
class Tree:
    """The shipped base.yaml with one scale and one ablation."""

    root: Path

    def write(self, name: str, text: str) -> Path:
        """Write a file of the tree."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def load(
        self,
        *overrides: str,
        name: str = "x",
        scale: str = "small",
        seeds: int | None = None,
    ) -> Ablation:
        """Load the ablation."""
        return load_ablation(
            name, scale=scale, seeds=seeds, overrides=overrides, experiments_dir=self.root
        )

    def mistakes(self, *overrides: str, name: str = "x", scale: str = "small") -> Sequence[str]:
        """The lines that a user sees."""
        with pytest.raises(ConfigError) as caught:
            self.load(*overrides, name=name, scale=scale)
        return str(caught.value).split("\n")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Messages name files relative to the current folder: `experiments/...`."""
    monkeypatch.chdir(tmp_path)
    made = Tree(tmp_path / "experiments")
    made.root.mkdir()
    shutil.copy(SHIPPED / "base.yaml", made.root)
    made.write("scale/small.yaml", SCALE)
    made.write("ablation/x.yaml", ABLATION)
    return made
