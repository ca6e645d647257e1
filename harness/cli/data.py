"""`harness data`: from image files to what training reads."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.options import (
    DEVICE,
    Commands,
    command,
    flag,
    number,
    one_of,
    option,
    path,
    spec_of,
)
from models.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from harness.data.inspect import Description
    from harness.data.manifest import Manifest

_MOST_NAMED = 10
"""How many of the images that were left out are named."""

_MANIFEST = path("manifest", "from make-manifest")
_SOURCE = path("source", "the images")
_PROCESSES = number("--processes", None, "that read (default: as many as there are cores)")


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
    for each in (make_manifest, describe, verify, encode):
        each.add(parts)


@command(
    _SOURCE,
    path("out", "the manifest to write"),
    one_of(
        option(
            "--class-list",
            metavar="LIST",
            help="take a list of classes that comes with the harness, such as sub-in-100/v1",
        ),
        path(
            "--classes-file",
            "take the classes of a text file, in its order: an id a line, or an id, a tab and a "
            "name",
        ),
        number("--classes", None, "draw N classes (default: take all)"),
    ),
    number("--per-class", None, "draw N images a class (default: take all)"),
    option("--seed", metavar="S", type=int, default=0, help="of the draw"),
    option(
        "--name",
        help="the manifest's name (default: the class list's, with how many a class and the seed "
        "if images are drawn; otherwise OUT's)",
    ),
    _PROCESSES,
    flag("--strict", "fail if an image cannot be read"),
    flag("--force", "replace OUT even if it holds another manifest"),
)
def make_manifest(options: argparse.Namespace) -> int:
    """Choose images and write their ids, sizes and hashes.

    Every image that is chosen of SOURCE is read and decoded, and its id, size and SHA-256 go to OUT
    (JSON). The same choice gives the same bytes, and the manifest's hash becomes part of every
    result. Images that cannot be read are left out, with the reason.

    Example: python -m harness data make-manifest imagenet/train sub-in-100.json --class-list
    sub-in-100/v1
    """
    from rich.console import Console

    from harness.data.class_lists import IMAGENET, read_class_file, read_class_list
    from harness.data.make_manifest import make_manifest as make
    from harness.data.manifest import write_manifest
    from harness.data.sources import open_source
    from harness.machine.environment import usable_cores
    from harness.terminal.progress import ProgressView

    out = options.out
    before = _present(out, options.force)
    chosen = None
    if options.class_list is not None:
        chosen = read_class_list(options.class_list)
    elif options.classes_file is not None:
        chosen = read_class_file(options.classes_file)
    named = read_class_list(IMAGENET) if chosen is None else chosen
    source = open_source(options.source)
    with ProgressView(Console(stderr=True)) as view:
        manifest = make(
            source,
            name=options.name or _default_name(options),
            class_ids=None if chosen is None else [item.id for item in chosen],
            classes=options.classes,
            per_class=options.per_class,
            seed=options.seed,
            names={item.id: item.name for item in named},
            processes=options.processes or usable_cores(),
            strict=options.strict,
            on_progress=view,
        )
    _check_same(out, before, manifest)
    write_manifest(out, manifest)
    if source.left_out:
        print(f"{options.source}: {source.left_out}")
    print(
        f"{manifest.name}: {len(manifest.images)} images of {len(manifest.classes)} classes, hash "
        f"{manifest.hash}"
    )
    if manifest.left_out:
        first = manifest.left_out[0]
        print(f"left out: {len(manifest.left_out)}, the first {first.id} ({first.reason})")
    print(out)
    return 0


def _present(out: Path, force: bool) -> Manifest | None:
    """The manifest that stands where one is to be written; asked before images are read.

    Raises:
        UserError: something else stands there, or nothing can.
    """
    from harness.data.manifest import read_manifest
    from harness.machine.files import check_writable

    check_writable(out)
    if force or not out.exists():
        return None
    try:
        return read_manifest(out)
    except UserError as error:
        raise UserError(f"{out} is there already: {error}; --force replaces it") from error


def _check_same(out: Path, before: Manifest | None, manifest: Manifest) -> None:
    from harness.vocabulary.names import short_hash

    if before is not None and before.hash != manifest.hash:
        raise UserError(
            f"{out} holds another manifest, {before.name} ({short_hash(before.hash)}), and this "
            f"one is {manifest.name} ({short_hash(manifest.hash)}): name another file, or replace "
            "it with --force"
        )


def _default_name(options: argparse.Namespace) -> str:
    if options.class_list is None:
        return str(options.out.stem)
    drawn = f"-{options.per_class}-per-class-seed-{options.seed}"
    return f"{options.class_list}{'' if options.per_class is None else drawn}"


@command(
    _MANIFEST,
    option("source", metavar="SOURCE", type=Path, nargs="?", help="the images"),
    number("--sampled", 1000, "look at the width and height of N images at most"),
    path("--contact-sheet", "write a picture of a few images of up to 20 classes", "PNG"),
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

    if options.contact_sheet is not None:
        if options.source is None:
            raise UserError("--contact-sheet needs SOURCE, the images that it shows")
        check_writable(options.contact_sheet)
    manifest = read_manifest(options.manifest)
    source = None if options.source is None else open_source(options.source)
    described = describe_manifest(manifest, source, options.sampled)
    Console().print(_class_table(described))
    print("\n".join(_lines(described)))
    if source is not None and options.contact_sheet is not None:
        contact_sheet(manifest, source, options.contact_sheet)
        print(options.contact_sheet)
    return 0


def _class_table(described: Description) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("label", "class", "name", "images", "bytes"):
        words = column in ("class", "name")
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    classes = zip(described.manifest.classes, described.image_bytes, strict=True)
    for label, (item, sizes) in enumerate(classes):
        # The user's own names are no markup.
        names = (Text(item.id), Text(item.name))
        table.add_row(str(label), *names, f"{len(sizes):,}", f"{sum(sizes):,}")
    return table


def _lines(described: Description) -> list[str]:
    from statistics import median

    manifest = described.manifest
    counts = list(map(len, described.image_bytes))
    lines = [
        f"{manifest.name}: {sum(counts):,} images of {len(counts):,} classes, "
        f"{sum(map(sum, described.image_bytes)):,} bytes",
        f"images a class: {min(counts):,} to {max(counts):,}, median {median(counts):,.10g}",
    ]
    sizes = described.image_sizes
    if sizes is not None:
        kinds = {"smallest": sizes.smallest, "median": sizes.median, "largest": sizes.largest}
        shown = ", ".join(f"{kind} {wide} x {high}" for kind, (wide, high) in kinds.items())
        lines.append(f"width x height of {sizes.sampled:,} images: {shown} (by area)")
    lines.append(f"left out: {len(manifest.left_out):,}")
    lines += [f"  {item.id}: {item.reason}" for item in manifest.left_out[:_MOST_NAMED]]
    if len(manifest.left_out) > _MOST_NAMED:
        lines.append(f"  and {len(manifest.left_out) - _MOST_NAMED:,} more, which it lists")
    return [*lines, f"hash: {manifest.hash}"]


@command(_MANIFEST, _SOURCE, flag("--sizes-only", "compare sizes, and read no image"), _PROCESSES)
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
        with ProgressView(Console(stderr=True)) as view:
            check_contents(manifest, source, options.processes or usable_cores(), view)
    what = "sizes" if options.sizes_only else "contents"
    print(f"{manifest.name}: all {len(manifest.images)} images have the {what} of the manifest")
    return 0


@command(
    option("source", metavar="SOURCE", help="the images"),
    option("out", metavar="OUT", help="the folder to write"),
    option(
        "--autoencoder",
        metavar="FOLDER",
        required=True,
        help="in diffusers' layout; or a name on the hub, as OWNER/NAME or OWNER/NAME/FOLDER",
    ),
    option("--manifest", metavar="FILE", required=True, help="from make-manifest"),
    number("--resolution", None, "pixels a side", required=True),
    option("--dtype", choices=("float16", "float32"), default="float16", help="to store in"),
    number("--batch-size", 32, "images encoded at once"),
    number(
        "--images-per-shard", 512, "about how many images a file holds, and a killed process loses"
    ),
    number("--processes", 1, "on this machine, GPUs in turn"),
    number("--loaders", 8, "threads of each process that read and decode images"),
    DEVICE,
)
def encode(options: argparse.Namespace) -> int:
    """Encode images and their mirror images with an autoencoder.

    Of each image of a manifest, and of its mirror image, mean and log-variance (AutoencoderKL) or
    the latent (AutoencoderDC) go to the folder OUT. The same command resumes where it was stopped,
    and can run any number of times side by side, also under torchrun and srun.

    Example: python -m harness data encode imagenet/train latents --manifest sub-in-100.json
    --autoencoder sd-vae-ft-ema --resolution 256
    """
    from rich.console import Console

    from harness.data.latents.encode import EncodeSpec, run_encode
    from harness.machine.place import place_from_environment
    from harness.processes.progress import ignore_progress
    from harness.terminal.progress import ProgressView

    spec = spec_of(EncodeSpec, options)
    place = place_from_environment()
    if place is not None and place.rank > 0:
        run_encode(spec, options.processes, ignore_progress)
        return 0
    with ProgressView(Console(stderr=True)) as view:
        encoded = run_encode(spec, options.processes, view)
    description = encoded.cache.description
    total = sum(description.shard_sizes)
    print(
        f"{description.manifest_name}: {total} images and their mirror images, {encoded.images} "
        f"of them encoded now in {encoded.seconds:.1f} s; identity {encoded.cache.identity}"
    )
    print(options.out)
    return 0
