"""`harness data`: from images to what training reads.

`harness data describe`: a manifest in numbers and as a picture.

`harness data verify`: see that the images are those of a manifest.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import data_encode, data_make_manifest
from harness.cli.options import Commands

if TYPE_CHECKING:
    from rich.table import Table

    from harness.data.inspect import Description, ImageSizes


_LEFT_OUT = 10
"""Images that were left out and are named, at most."""


def add_describe(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "describe",
        help="show what a manifest holds, in numbers and as a picture",
        description="Show classes, counts, bytes, what was left out and the hash of MANIFEST. "
        "With SOURCE, also widths and heights and a sheet of images.",
        epilog="Example: python -m harness data describe sub-in-100.json imagenet/train "
        "--contact-sheet sub-in-100.png",
    )
    command.add_argument("manifest", metavar="MANIFEST", type=Path, help="of make-manifest")
    command.add_argument("source", metavar="SOURCE", type=Path, nargs="?", help="the images")
    command.add_argument(
        "--sampled",
        metavar="N",
        type=int,
        help="look at the width and height of N images at most (default: 1000)",
    )
    command.add_argument(
        "--contact-sheet",
        metavar="PNG",
        type=Path,
        help="write a picture of a few images of up to 20 classes",
    )
    command.set_defaults(command=_describe)


def _describe(options: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.data.inspect import SAMPLED, contact_sheet, describe
    from harness.data.manifest import read_manifest
    from harness.data.sources import open_source
    from models.errors import UserError

    if options.contact_sheet is not None and options.source is None:
        raise UserError("--contact-sheet needs SOURCE, the images that it shows")
    manifest = read_manifest(options.manifest)
    source = None if options.source is None else open_source(options.source)
    sampled = SAMPLED if options.sampled is None else options.sampled
    described = describe(manifest, source, sampled)
    console = Console()
    console.print(_class_table(described))
    for line in _lines(described):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if source is not None and options.contact_sheet is not None:
        contact_sheet(manifest, source, options.contact_sheet)
        console.print(str(options.contact_sheet), highlight=False, markup=False, soft_wrap=True)
    return 0


def _class_table(described: Description) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("label", "class", "name", "images", "bytes"):
        words = column in ("class", "name")
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    for label, item in enumerate(described.classes):
        # The user's own names are no markup.
        table.add_row(
            str(label), Text(item.id), Text(item.name), f"{item.images:,}", f"{item.size:,}"
        )
    return table


def _lines(described: Description) -> list[str]:
    fewest, median, most = described.per_class
    lines = [
        f"{described.name}: {described.images:,} images of {len(described.classes):,} classes, "
        f"{described.size:,} bytes",
        f"images a class: {fewest:,} to {most:,}, median {median:,.10g}",
    ]
    if described.image_sizes is not None:
        lines.append(_size_line(described.image_sizes))
    lines.append(f"left out: {len(described.left_out):,}")
    lines += [f"  {item.id}: {item.reason}" for item in described.left_out[:_LEFT_OUT]]
    if len(described.left_out) > _LEFT_OUT:
        lines.append(f"  and {len(described.left_out) - _LEFT_OUT:,} more, which it lists")
    lines.append(f"hash: {described.hash}")
    return lines


def _size_line(sizes: ImageSizes) -> str:
    shown = (
        f"{name} {width} x {height}"
        for name, (width, height) in (
            ("smallest", sizes.smallest),
            ("median", sizes.median),
            ("largest", sizes.largest),
        )
    )
    return f"width x height of {sizes.sampled:,} images: {', '.join(shown)} (by area)"


def add_verify(commands: Commands) -> None:
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
    for add_part in (data_make_manifest.add, add_describe, add_verify, data_encode.add):
        add_part(parts)
