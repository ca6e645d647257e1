"""`harness data`: from image files to what training reads; here its `describe` and `verify`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import data_encode, data_make_manifest
from harness.cli.options import Commands, add_command, add_number

if TYPE_CHECKING:
    from rich.table import Table

    from harness.data.inspect import Description, ImageSizes

_MOST_NAMED = 10
"""How many of the images that were left out are named."""


def add(commands: Commands) -> None:
    """Add `data`, a group of commands."""
    group = commands.add_parser(
        "data",
        help="make, check, describe and encode a data set",
        description="From images to what training reads: a manifest says which images, a cache "
        "holds their latents.",
        epilog="Start with: python -m harness data make-manifest --help",
    )
    parts = group.add_subparsers(title="commands", required=True, metavar="COMMAND")
    data_make_manifest.add(parts)
    add_command(parts, describe, _add_describe)
    add_command(parts, verify, _add_verify)
    data_encode.add(parts)


def _add_describe(command: argparse.ArgumentParser) -> None:
    command.add_argument("manifest", metavar="MANIFEST", type=Path, help="from make-manifest")
    command.add_argument("source", metavar="SOURCE", type=Path, nargs="?", help="the images")
    add_number(command, "--sampled", 1000, "look at the width and height of N images at most")
    command.add_argument(
        "--contact-sheet",
        metavar="PNG",
        type=Path,
        help="write a picture of a few images of up to 20 classes",
    )


def describe(options: argparse.Namespace) -> int:
    """Show what a manifest holds, in numbers and as a picture.

    Prints classes, counts, bytes, what was left out and the hash of MANIFEST. With SOURCE, also
    widths and heights and a sheet of images.

    Example: python -m harness data describe sub-in-100.json imagenet/train --contact-sheet
    sub-in-100.png
    """
    from rich.console import Console

    from harness.data.inspect import contact_sheet
    from harness.data.inspect import describe as describe_manifest
    from harness.data.manifest import read_manifest
    from harness.data.sources import open_source
    from harness.machine.files import check_writable
    from models.errors import UserError

    if options.contact_sheet is not None and options.source is None:
        raise UserError("--contact-sheet needs SOURCE, the images that it shows")
    if options.contact_sheet is not None:
        check_writable(options.contact_sheet)
    manifest = read_manifest(options.manifest)
    source = None if options.source is None else open_source(options.source)
    described = describe_manifest(manifest, source, options.sampled)
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
    lines += [f"  {item.id}: {item.reason}" for item in described.left_out[:_MOST_NAMED]]
    if len(described.left_out) > _MOST_NAMED:
        lines.append(f"  and {len(described.left_out) - _MOST_NAMED:,} more, which it lists")
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


def _add_verify(command: argparse.ArgumentParser) -> None:
    command.add_argument("manifest", metavar="MANIFEST", type=Path, help="from make-manifest")
    command.add_argument("source", metavar="SOURCE", type=Path, help="the images")
    command.add_argument(
        "--sizes-only", action="store_true", help="compare sizes, and read no image"
    )
    add_number(command, "--processes", None, "that read (default: as many as there are cores)")


def verify(options: argparse.Namespace) -> int:
    """See that the images are those of a manifest.

    Reads every image that MANIFEST names from SOURCE and compares its SHA-256. Further images in
    SOURCE do not matter.

    Example: python -m harness data verify sub-in-100.json imagenet/train
    """
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
        processes = options.processes or usable_cores()
        with ProgressView(Console(stderr=True)) as view:
            check_contents(manifest, source, processes, view)
    what = "sizes" if options.sizes_only else "contents"
    print(f"{manifest.name}: all {len(manifest.images)} images have the {what} of the manifest")
    return 0
