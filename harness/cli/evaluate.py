"""`harness evaluate`: FID and its relatives of images from anywhere.

`harness evaluate build-reference`: what samples are compared with, once and for all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli.options import (
    FAILED,
    Commands,
    add_experiments_dir,
    add_extraction,
    add_processes,
    add_runs_dir,
)
from harness.vocabulary.metrics import Measurement


def add_build_reference(commands: Commands) -> None:
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

    from harness.evaluation.standalone.reference import BuildSpec, run_build
    from harness.processes.ranks import RankFailedError
    from harness.terminal.progress import ProgressView
    from models.errors import UserError

    if options.out.suffix != ".npz":
        raise UserError(f"OUT is {options.out}, but must end in .npz")
    for name in ("single_images", "batch_size"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be 1 or more")
    spec = BuildSpec(
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
            built = run_build(spec, options.processes, view)
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


_EXPORT = "adm="

FEWEST_OF_A_CLASS = 100


def add(commands: Commands) -> None:
    """Add the group of commands to the command line."""
    command = commands.add_parser(
        "evaluate",
        help="measure samples from anywhere: FID, sFID, KID, IS, precision and recall",
        description="Compare samples with real images, and print each figure with all that it "
        "depends on. On Inception features the distances are FID, sFID and KID; on others they "
        "bear the extractor's name.",
        epilog="Example: python -m harness evaluate --samples samples.npz --reference "
        "VIRTUAL_imagenet256_labeled.npz",
    )
    command.add_argument(
        "--samples",
        metavar="IMAGES",
        help="a folder of images, an .npz with arr_0, a .npy, or a trial's folder or run id",
    )
    command.add_argument(
        "--reference",
        metavar="REF",
        type=Path,
        help="of build-reference or of ADM; or real images, as a folder, .npz or .npy",
    )
    add_extraction(command, "default: the reference's, else inception")
    add_processes(command)
    command.add_argument(
        "--metrics",
        nargs="+",
        choices=[one.value for one in Measurement],
        help="; ".join(f"{one.value}: {_meanings(one)}" for one in Measurement)
        + " (default: all that the extractor can give)",
    )
    command.add_argument(
        "--splits",
        metavar="N",
        type=int,
        default=10,
        help="of the Inception score (default: %(default)s)",
    )
    command.add_argument(
        "--resamples",
        metavar="N",
        type=int,
        default=100,
        help="for the interval that stands beside the distance of few samples; 0 leaves it out "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--per-class",
        metavar="N",
        type=int,
        nargs="?",
        const=FEWEST_OF_A_CLASS,
        help="the Frechet distance of each class too, of those with N images or more on both sides "
        f"(N is {FEWEST_OF_A_CLASS} where it is left out); both sides need labels: a folder of "
        "class folders, or arr_1 in an .npz",
    )
    command.add_argument(
        "--per-class-csv", metavar="FILE", type=Path, help="write the classes' distances as CSV"
    )
    command.add_argument(
        "--export", metavar="adm=NPZ", help="write the samples as ADM's evaluator reads them"
    )
    command.add_argument("--json", metavar="FILE", type=Path, help="write all of it as JSON")
    add_runs_dir(command)
    command.set_defaults(command=_evaluate)
    parts = command.add_subparsers(title="commands", metavar="COMMAND")
    add_build_reference(parts)


def _meanings(measurement: Measurement) -> str:
    """The metrics of a measurement in words, with the field's names where those are others."""
    return ", ".join(
        f"{metric.meaning} ({metric.inception_title})" if metric.inception_title else metric.meaning
        for metric in measurement.metrics
    )


def _evaluate(options: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.evaluation.standalone.evaluate import run_evaluation
    from harness.evaluation.standalone.spec import EvaluateSpec
    from harness.evaluation.standalone.table import print_evaluation
    from harness.processes.ranks import RankFailedError
    from harness.terminal.progress import ProgressView
    from models.errors import UserError

    if options.samples is None or options.reference is None:
        raise UserError(
            "evaluate needs --samples IMAGES and --reference REF; `evaluate --help` tells what "
            "they may be, `evaluate build-reference` makes a reference"
        )
    for name in ("splits", "batch_size"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be 1 or more")
    if options.export is not None and not options.export.startswith(_EXPORT):
        raise UserError(f"--export is {options.export}, but expected {_EXPORT}OUT.npz")
    if options.per_class is not None and options.per_class < 2:
        raise UserError(f"--per-class is {options.per_class}, but a distance needs 2 images")
    if options.per_class_csv is not None and options.per_class is None:
        raise UserError("--per-class-csv writes what --per-class measures: give that too")
    spec = EvaluateSpec(
        samples=options.samples,
        reference=options.reference,
        extractor=options.extractor,
        extractor_weights=options.extractor_weights,
        measurements=None
        if options.metrics is None
        else tuple(Measurement(name) for name in dict.fromkeys(options.metrics)),
        inception_splits=options.splits,
        resamples=options.resamples,
        batch_size=options.batch_size,
        device=options.device,
        export=None if options.export is None else Path(options.export.removeprefix(_EXPORT)),
        json=options.json,
        runs_dir=options.runs_dir,
        per_class=options.per_class,
        per_class_csv=options.per_class_csv,
    )
    aside = Console(stderr=True)
    try:
        evaluation = run_evaluation(spec, options.processes, lambda unit: ProgressView(aside, unit))
    except RankFailedError as error:
        aside.print(error, highlight=False, markup=False, soft_wrap=True)
        return FAILED
    if evaluation is None:
        return 0
    print_evaluation(evaluation, Console())
    for path in spec.outputs:
        if str(path) not in evaluation.unwritten:
            print(path)
    if evaluation.unwritten:
        reasons = [f"{path} ({reason})" for path, reason in evaluation.unwritten.items()]
        raise UserError(f"the figures stand above, but could not be written: {', '.join(reasons)}")
    return 0
