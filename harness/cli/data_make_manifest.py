"""`harness data make-manifest`: say which images a data set is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.options import Commands, add_command, add_number

if TYPE_CHECKING:
    from harness.data.manifest import Manifest, ManifestClass


def add(commands: Commands) -> None:
    """Add the command."""
    add_command(commands, make_manifest, _add_files, _add_choice, _add_reading)


def _add_files(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", metavar="SOURCE", type=Path, help="the images")
    command.add_argument("out", metavar="OUT", type=Path, help="the manifest to write")


def _add_choice(command: argparse.ArgumentParser) -> None:
    choice = command.add_mutually_exclusive_group()
    choice.add_argument(
        "--class-list",
        metavar="LIST",
        help="take a list of classes that comes with the harness, such as sub-in-100/v1",
    )
    choice.add_argument(
        "--classes-file",
        metavar="FILE",
        type=Path,
        help="take the classes of a text file, in its order: an id a line, or an id, a tab and a "
        "name",
    )
    add_number(choice, "--classes", None, "draw N classes (default: take all)")
    add_number(command, "--per-class", None, "draw N images a class (default: take all)")
    command.add_argument("--seed", metavar="S", type=int, default=0, help="of the draw")


def _add_reading(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--name",
        help="the manifest's name (default: the class list's, with how many a class and the seed "
        "if images are drawn; otherwise OUT's)",
    )
    add_number(command, "--processes", None, "that read (default: as many as there are cores)")
    command.add_argument("--strict", action="store_true", help="fail if an image cannot be read")
    command.add_argument(
        "--force", action="store_true", help="replace OUT even if it holds another manifest"
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

    from harness.data.make_manifest import make_manifest as make
    from harness.data.manifest import write_manifest
    from harness.data.sources import open_source
    from harness.machine.environment import usable_cores
    from harness.terminal.progress import ProgressView

    before = _present(options.out, options.force)
    chosen = _chosen(options)
    source = open_source(options.source)
    console = Console(stderr=True)
    with ProgressView(console) as view:
        manifest = make(
            source,
            name=options.name or _default_name(options),
            class_ids=None if chosen is None else [item.id for item in chosen],
            classes=options.classes,
            per_class=options.per_class,
            seed=options.seed,
            names=_names(chosen),
            processes=options.processes or usable_cores(),
            strict=options.strict,
            on_progress=view,
        )
    _check_same(options.out, before, manifest)
    write_manifest(options.out, manifest)
    if source.left_out:
        print(f"{options.source}: {source.left_out}")
    _report(options.out, manifest)
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


def _chosen(options: argparse.Namespace) -> tuple[ManifestClass, ...] | None:
    from harness.data.class_lists import read_class_file, read_class_list

    if options.class_list is not None:
        return read_class_list(options.class_list)
    return None if options.classes_file is None else read_class_file(options.classes_file)


def _names(chosen: tuple[ManifestClass, ...] | None) -> dict[str, str]:
    """Names of classes by id: those of the chosen list, else ImageNet's."""
    from harness.data.class_lists import IMAGENET, read_class_list

    classes = read_class_list(IMAGENET) if chosen is None else chosen
    return {item.id: item.name for item in classes}


def _default_name(options: argparse.Namespace) -> str:
    if options.class_list is None:
        return str(options.out.stem)
    drawn = f"-{options.per_class}-per-class-seed-{options.seed}"
    return f"{options.class_list}{'' if options.per_class is None else drawn}"


def _report(out: Path, manifest: Manifest) -> None:
    print(
        f"{manifest.name}: {len(manifest.images)} images of {len(manifest.classes)} classes, hash "
        f"{manifest.hash}"
    )
    if manifest.left_out:
        first = manifest.left_out[0]
        print(f"left out: {len(manifest.left_out)}, the first {first.id} ({first.reason})")
    print(out)
