"""`harness evaluate build-reference`: what samples are compared with, once and for all."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli.options import Commands, add_experiments_dir, add_extraction, add_processes
from harness.commands.exit_codes import FAILED


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "build-reference",
        help="store statistics and features of real images",
        description="Look at all images once and write mean, covariance, features of single "
        "images and where all of it comes from to OUT, an .npz that pytorch-fid reads too, and "
        "ADM's evaluator with --layout adm.",
        epilog="Examples: python -m harness evaluate build-reference images/ reference.npz; "
        "... build-reference imagenet/train reference.npz --manifest sub-in-100.json --resolution "
        "256; ... build-reference scale:cifar10 cifar10.npz data.path=cifar-10-batches-py",
    )
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder of images of one size, an .npz with arr_0, a .npy; with --manifest, images "
        "packed in any way; or scale:NAME, the training images of a scale",
    )
    command.add_argument("out", metavar="OUT", type=Path, help="the .npz to write")
    command.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        default=[],
        help="change a field of a scale's data, such as data.path=...",
    )
    add_extraction(command, "default: inception")
    add_processes(command)
    command.add_argument("--manifest", metavar="FILE", type=Path, help="of data make-manifest")
    command.add_argument(
        "--resolution", metavar="R", type=int, help="pixels a side, for images of a manifest"
    )
    command.add_argument(
        "--layout",
        choices=("features", "adm"),
        default="features",
        help="keep features of single images, or the images themselves, as ADM's files do "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--single-images",
        metavar="N",
        type=int,
        default=10_000,
        help="how many of them at most, for KID, precision and recall (default: %(default)s)",
    )
    add_experiments_dir(command)
    command.set_defaults(command=_build)


def _build(options: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.evaluation.standalone.reference import BuildOrder, run_build
    from harness.processes.ranks import RankFailedError
    from harness.terminal.progress import ProgressView
    from models.errors import UserError

    if options.out.suffix != ".npz":
        raise UserError(f"OUT is {options.out}, but must end in .npz")
    for name in ("single_images", "batch_size"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be 1 or more")
    order = BuildOrder(
        source=options.source,
        out=options.out,
        overrides=tuple(options.overrides),
        extractor=options.extractor or "inception",
        extractor_weights=options.extractor_weights,
        manifest=options.manifest,
        resolution=options.resolution,
        layout=options.layout,
        single_images=options.single_images,
        batch_size=options.batch_size,
        device=options.device,
        experiments_dir=options.experiments_dir,
    )
    aside = Console(stderr=True)
    try:
        with ProgressView(aside) as view:
            built = run_build(order, options.processes, view)
    except RankFailedError as error:
        aside.print(error, highlight=False, markup=False, soft_wrap=True)
        return FAILED
    if built is None:
        return 0
    for note in built.notes:
        print(note)
    provenance = built.provenance
    print(
        f"{provenance['images']} images of {provenance['resolution']} seen by "
        f"{provenance['extractor_display']}, {provenance['single_images']} of them kept one by one"
    )
    print(options.out)
    return 0
