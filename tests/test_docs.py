"""The documents speak of what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.config.layers import names as names_of
from harness.config.load import load_ablation
from harness.config.sections import TrainConfig
from harness.machine.environment import EXPERIMENTS, ROOT
from harness.vocabulary import names
from models.attention.dydila import Config

DOCS = ROOT / "docs"


@pytest.mark.parametrize("field", sorted(set(Config.model_fields) - {"name"}))
def test_every_field_of_dydila_is_listed_with_its_default_and_origin(field: str) -> None:
    default = getattr(Config(), field)
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    assert_listed_with_origin(f"{field}: {shown}")


def test_the_learning_rate_of_the_factors_is_listed_with_its_default_and_origin() -> None:
    default = TrainConfig.model_fields["factor_learning_rate"].default
    assert_listed_with_origin(f"train.factor_learning_rate: {default}")


def assert_listed_with_origin(point: str) -> None:
    text = (DOCS / "dydila.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if f"| `{point}` |" in line]
    assert re.search(r"\[(paper|second-hand|ours)\]", row)


@pytest.mark.parametrize("kind", ["ablation", "scale"])
def test_the_tables_of_experiments_list_every_file(kind: str) -> None:
    text = (DOCS / "experiments.md").read_text(encoding="utf-8")
    section = text.split("## Scales" if kind == "scale" else "## Ablations")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)
    assert sorted(listed) == sorted(names_of(kind, EXPERIMENTS))


def test_the_factorial_has_as_many_variants_as_its_document_says() -> None:
    ablation = load_ablation(
        "factorial", scale="digits", seeds=1, overrides=[], experiments_dir=EXPERIMENTS
    )
    assert len(ablation.variants) == 15
    assert "all 15 combinations" in (DOCS / "experiments.md").read_text(encoding="utf-8")


PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)[)#]", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_code_that_documents_name_is_there(path: Path) -> None:
    rooms = "harness|models|reports|benchmarks|tests|examples"
    text = path.read_text(encoding="utf-8")
    for name in re.findall(rf"`((?:{rooms})/[\w/.-]+)`", text):
        assert "mine" in name or (ROOT / name).exists(), name
    for name in re.findall(r"`((?:harness|models|reports)(?:\.\w+)+)(?:\(.*\))?`", text):
        assert is_module_or_name(name), name


def is_module_or_name(dotted: str) -> bool:
    """Whether a module has this name, or defines the last part of it; MLflow's tags are none."""
    if dotted in {value for name, value in vars(names).items() if name.startswith("TAG_")}:
        return True
    *module, last = dotted.split(".")
    file = ROOT.joinpath(*module)
    texts = [
        place.read_text()
        for place in (file.with_suffix(".py"), file / "__init__.py")
        if place.is_file()
    ]
    there = (file / last).is_dir() or (file / f"{last}.py").is_file()
    return there or any(re.search(rf"\b{last}\b", text) for text in texts)
