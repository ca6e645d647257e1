"""One file of `experiments/ablation/`: a question and the variants that answer it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from harness.config.discovery import matching
from harness.config.layers import NAME_WORDS, is_safe_name, nest
from harness.config.mistakes import Mistake, nearest_name
from harness.config.sections import Section
from harness.config.validation import validate
from harness.config.yaml_source import Node, read_yaml
from models.errors import one_line

QUESTION = "question"
_SETTINGS = "settings"
_VARIANTS = "variants"


def _differ(seeds: tuple[int, ...]) -> tuple[int, ...]:
    repeated = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if repeated:
        raise ValueError(f"seed {repeated[0]} is listed more than once")
    return seeds


Question = Annotated[str, matching(r"(?s).*\S.*", "a question"), AfterValidator(one_line)]
"""What an ablation or a search is to find out, in one line."""
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seeds = Annotated[tuple[Seed, ...], Field(strict=False, min_length=1), AfterValidator(_differ)]
"""The seeds that every configuration is trained with, each once."""


class _Keys(Section):
    """The keys of such a file; what settings and variants hold is the trial schema's business."""

    question: Question
    baseline: str
    variants: dict[str, dict[str, Any]] = Field(min_length=1)
    seeds: Seeds
    settings: dict[str, Any] = Field(default={})


@dataclass(frozen=True)
class AblationFile:
    """What the file says, its settings and variants not yet checked against the schema."""

    question: str
    baseline: str
    seeds: tuple[int, ...]
    settings: Node
    """For all variants."""
    variants: Mapping[str, Node]
    """Differences of each variant, in the order of the file."""


def read_ablation_file(path: Path, mistakes: list[Mistake]) -> AblationFile | None:
    """Read an ablation.

    Returns:
        Its contents; None, and the mistakes, where the file's own keys are wrong.
    """
    document = read_yaml(path, mistakes)
    if document is None:
        return None
    keys = validate(_Keys, [document], mistakes)
    settings = document.find((_SETTINGS,)) or Node({}, document.origin)
    settings = nest(settings, mistakes)
    variants = document.find((_VARIANTS,)) or Node({}, document.origin)
    differences = {name: nest(node, mistakes) for name, node in variants.entries().items()}
    by_lower: dict[str, str] = {}
    for name, node in variants.entries().items():
        if not is_safe_name(name):
            problem = f"'{name}' cannot be the name of a folder"
            mistakes.append(Mistake(node.origin, f"{_VARIANTS}.{name}", problem, NAME_WORDS))
        twin = by_lower.setdefault(name.lower(), name)
        if twin != name:
            problem = f"differs from '{twin}' in case alone, which is one folder on some systems"
            mistakes.append(Mistake(node.origin, f"{_VARIANTS}.{name}", problem, "another name"))
    if keys is None:
        return None
    if keys.baseline not in differences:
        baseline = document.entries()["baseline"]
        expected = f"one of {', '.join(differences)}"
        nearest = nearest_name(keys.baseline, list(differences))
        problem = f"'{keys.baseline}' is not among the variants"
        mistakes.append(Mistake(baseline.origin, "baseline", problem, expected, nearest))
    return AblationFile(keys.question, keys.baseline, keys.seeds, settings, differences)
