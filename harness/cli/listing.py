"""`harness list`: what there is to run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.options import Commands, add_command, add_experiments_dir

if TYPE_CHECKING:
    from harness.config.catalogue import Kind
    from harness.config.mistakes import Mistake


def add(commands: Commands) -> None:
    """Add the command."""
    add_command(commands, print_list, add_experiments_dir, name="list")


def print_list(options: argparse.Namespace) -> int:
    """List ablations, searches, scales and attention variants, each with its question."""
    from models.attention import load_variant, variant_names
    from models.errors import UserError

    folder = options.experiments_dir
    if not folder.is_dir():
        raise UserError(f"--experiments-dir {folder}: there is no such folder")
    variants = [(name, load_variant(name).question) for name in variant_names()]
    sections = {
        "Ablations (make ablation EXP=...)": _catalogue_rows(list_ablations(folder)),
        "Searches (make search SEARCH=... TRIALS=...)": _catalogue_rows(list_searches(folder)),
        "Scales (SCALE=...)": _catalogue_rows(list_scales(folder)),
        "Attention variants (attention.name)": variants,
    }
    for title, rows in sections.items():
        print(title)
        width = max((len(name) for name, _ in rows), default=0)
        for name, about in rows:
            print(f"  {name:<{width}}  {about}")
        print()
    return 0


def _catalogue_rows(listed: Sequence[Listed]) -> list[tuple[str, str]]:
    return [(item.name, f"broken: {item.error}" if item.error else item.about) for item in listed]


@dataclass(frozen=True)
class Listed:
    """One file of the catalogue: its name, its question or purpose, and what is wrong with it."""

    name: str
    about: str
    error: str | None


def list_ablations(experiments_dir: Path) -> tuple[Listed, ...]:
    """All ablations by name, broken files included."""
    from harness.config.ablation_file import QUESTION, read_ablation_file

    return _listed("ablation", QUESTION, read_ablation_file, experiments_dir)


def list_searches(experiments_dir: Path) -> tuple[Listed, ...]:
    """All searches by name, broken files included."""
    from harness.config.ablation_file import QUESTION
    from harness.search.config import read_search_file

    return _listed("search", QUESTION, read_search_file, experiments_dir)


def list_scales(experiments_dir: Path) -> tuple[Listed, ...]:
    """All scales by name, broken files included."""
    from harness.config.layers import ABOUT, load_layers

    def check(path: Path, mistakes: list[Mistake]) -> None:
        load_layers(path, experiments_dir, mistakes)

    return _listed("scale", ABOUT, check, experiments_dir)


def _listed(
    kind: Kind,
    about_key: str,
    check: Callable[[Path, list[Mistake]], object],
    experiments_dir: Path,
) -> tuple[Listed, ...]:
    from harness.config.catalogue import SUFFIX, files
    from harness.config.layers import NAME_WORDS, about_line, is_safe_name
    from harness.config.mistakes import Mistake, Origin
    from harness.config.yaml_source import read_yaml, shown_path

    listed = []
    for path in files(kind, experiments_dir):
        mistakes: list[Mistake] = []
        document = read_yaml(path, mistakes)
        about = "" if document is None else about_line(document, about_key, [])
        name = path.name.removesuffix(SUFFIX)
        if not is_safe_name(name):
            problem = "is no name for a file of the catalogue"
            mistakes.append(Mistake(Origin(shown_path(path)), "", problem, NAME_WORDS))
        if not mistakes:
            check(path, mistakes)
        listed.append(Listed(name, about, str(mistakes[0]) if mistakes else None))
    return tuple(listed)
