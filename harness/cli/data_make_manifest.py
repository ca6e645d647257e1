"""`harness data make-manifest`: say which images a data set is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.options import command, flag, number, one_of, option, path

if TYPE_CHECKING:
    from harness.data.manifest import Manifest


@command(
    path("source", "the images"),
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
    number("--processes", None, "that read (default: as many as there are cores)"),
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
    from models.errors import UserError

    check_writable(out)
    if force or not out.exists():
        return None
    try:
        return read_manifest(out)
    except UserError as error:
        raise UserError(f"{out} is there already: {error}; --force replaces it") from error


def _check_same(out: Path, before: Manifest | None, manifest: Manifest) -> None:
    from harness.vocabulary.names import short_hash
    from models.errors import UserError

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
