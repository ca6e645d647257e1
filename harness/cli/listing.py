"""`harness list`: what there is to run."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.options import EXPERIMENTS_DIR, command

if TYPE_CHECKING:
    from harness.config.layers import Kind


@command(EXPERIMENTS_DIR, name="list")
def print_list(options: argparse.Namespace) -> int:
    """List ablations, searches, scales and attention variants, each with its question."""
    from models.attention import load_variant, variant_names
    from models.errors import UserError

    folder = options.experiments_dir
    if not folder.is_dir():
        raise UserError(f"--experiments-dir {folder}: there is no such folder")
    sections = {
        "Ablations (make ablation EXP=...)": list_files("ablation", folder),
        "Searches (make search SEARCH=... TRIALS=...)": list_files("search", folder),
        "Scales (SCALE=...)": list_files("scale", folder),
        "Attention variants (attention.name)": [
            Listed(name, load_variant(name).question) for name in variant_names()
        ],
    }
    for title, rows in sections.items():
        print(title)
        width = max((len(row.name) for row in rows), default=0)
        for row in rows:
            print(f"  {row.name:<{width}}  {f'broken: {row.error}' if row.error else row.about}")
        print()
    return 0


@dataclass(frozen=True)
class Listed:
    """What can be named, its question or purpose, and what is wrong with its file."""

    name: str
    about: str
    error: str | None = None


def list_files(kind: Kind, experiments_dir: Path) -> tuple[Listed, ...]:
    """All ablations, searches or scales by name, broken files included."""
    from harness.config.layers import (
        ABOUT,
        NAME_WORDS,
        SUFFIX,
        about_line,
        files,
        is_safe_name,
        load_layers,
    )
    from harness.config.load import QUESTION, read_ablation_file
    from harness.config.mistakes import Mistake, Origin
    from harness.config.yaml_source import read_yaml, shown_path
    from harness.search.config import read_search_file

    listed = []
    for path in files(kind, experiments_dir):
        mistakes: list[Mistake] = []
        document = read_yaml(path, mistakes)
        about_key = ABOUT if kind == "scale" else QUESTION
        about = "" if document is None else about_line(document, about_key, [])
        name = path.name.removesuffix(SUFFIX)
        if not is_safe_name(name):
            problem = "is no name for a file of the catalogue"
            mistakes.append(Mistake(Origin(shown_path(path)), "", problem, NAME_WORDS))
        if not mistakes:
            match kind:
                case "ablation":
                    read_ablation_file(path, mistakes)
                case "search":
                    read_search_file(path, mistakes)
                case _:
                    load_layers(path, experiments_dir, mistakes)
        listed.append(Listed(name, about, str(mistakes[0]) if mistakes else None))
    return tuple(listed)
