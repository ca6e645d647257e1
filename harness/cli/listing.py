"""`harness list`: what there is to run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.cli.options import Commands, add_experiments_dir

if TYPE_CHECKING:
    from harness.config.catalogue import Listed


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "list",
        help="list ablations, searches, scales and attention variants, each with its question",
        description="List ablations, searches, scales and attention variants, each with its "
        "question.",
    )
    add_experiments_dir(command)
    command.set_defaults(command=_list)


def _list(options: argparse.Namespace) -> int:
    from harness.config.catalogue import list_ablations, list_scales, list_searches
    from models.attention import load_variant, variant_names

    folder = options.experiments_dir
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
