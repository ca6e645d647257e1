"""`harness data`: from images to what training reads."""

from __future__ import annotations

from harness.cli import data_encode, data_make_manifest
from harness.cli.options import Commands
from harness.commands import data_describe, data_verify


def add(commands: Commands) -> None:
    """Add the group of commands to the command line."""
    group = commands.add_parser(
        "data",
        help="make, check, describe and encode a data set",
        description="From images to what training reads: a manifest says which images, a cache "
        "holds their latents.",
        epilog="Start with: python -m harness data make-manifest --help",
    )
    parts = group.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (data_make_manifest, data_describe, data_verify, data_encode):
        command.add(parts)
