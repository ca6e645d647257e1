"""`harness data verify`: see that the images are those of a manifest."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "verify",
        help="see that the images are those of a manifest",
        description="Read every image that MANIFEST names from SOURCE and compare its SHA-256. "
        "Further images in SOURCE do not matter.",
        epilog="Example: python -m harness data verify sub-in-100.json imagenet/train",
    )
    command.add_argument("manifest", metavar="MANIFEST", type=Path, help="of make-manifest")
    command.add_argument("source", metavar="SOURCE", type=Path, help="the images")
    command.add_argument(
        "--sizes-only", action="store_true", help="compare sizes, and read no image"
    )
    command.add_argument(
        "--processes",
        metavar="N",
        type=int,
        help="that read (default: as many as there are cores)",
    )
    command.set_defaults(command=_verify)


def _verify(options: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.data.manifest import read_manifest
    from harness.data.sources import open_source
    from harness.data.verify import check_contents, check_sizes
    from harness.machine.environment import usable_cores
    from harness.terminal.progress import ProgressView

    manifest = read_manifest(options.manifest)
    source = open_source(options.source)
    if options.sizes_only:
        check_sizes(manifest, source)
    else:
        processes = options.processes if options.processes is not None else usable_cores()
        with ProgressView(Console(stderr=True)) as view:
            check_contents(manifest, source, processes, view)
    what = "sizes" if options.sizes_only else "contents"
    print(f"{manifest.name}: all {len(manifest.images)} images have the {what} of the manifest")
    return 0
