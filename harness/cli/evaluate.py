"""`harness evaluate`: FID and its relatives of images from anywhere, and their references."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli.options import (
    EXPERIMENTS_DIR,
    RUNS_DIR,
    Commands,
    command,
    extraction,
    number,
    option,
    overrides,
    path,
    spec_of,
)
from harness.evaluation.standalone.spec import DEFAULT_SPLITS
from harness.vocabulary.metrics import METRICS, Measurement
from models.errors import UserError

BUILD_REFERENCE = "evaluate build-reference"
_EXPORT = "adm="
_FEWEST_OF_A_CLASS = 100
_MEASUREMENTS = {measurement.value: measurement for measurement in Measurement} | {
    name: metric.measurement
    for metric in METRICS
    for name in (metric.key, metric.inception_key)
    if name is not None
}
"""The names that `--metrics` takes: of what is measured in one go, of single metrics, and the
field's names of those on Inception features."""


def add(commands: Commands) -> None:
    """Add the commands."""
    evaluate.add(commands)
    build_reference.add(commands)


def _measurement(name: str) -> Measurement:
    if name not in _MEASUREMENTS:
        expected = ", ".join(_MEASUREMENTS)
        raise argparse.ArgumentTypeError(f"is {name}, but expected some of {expected}")
    return _MEASUREMENTS[name]


def _meanings(measurement: Measurement) -> str:
    """The metrics of a measurement in words, with the field's names where those are others."""
    words = []
    for metric in measurement.metrics:
        own = metric.inception_title not in (None, metric.title)
        words.append(f"{metric.meaning} ({metric.inception_title})" if own else metric.meaning)
    return ", ".join(words)


def _export(typed: str) -> Path:
    if not typed.startswith(_EXPORT):
        raise argparse.ArgumentTypeError(f"is {typed}, but expected {_EXPORT}OUT.npz")
    return Path(typed.removeprefix(_EXPORT))


@command(
    option("images", nargs="*", metavar="SAMPLES REFERENCE", help="short for the next two options"),
    option(
        "--samples",
        metavar="IMAGES",
        help="a folder of images, an .npz with arr_0, a .npy, or a trial's folder or run id",
    ),
    path(
        "--reference",
        "from build-reference or of ADM; or real images, as a folder, .npz or .npy",
        "REF",
    ),
    *extraction(None, "the reference's, else inception"),
    option(
        "--metrics",
        dest="measurements",
        metavar="NAME",
        nargs="+",
        type=_measurement,
        help="; ".join(f"{one.value}: {_meanings(one)}" for one in Measurement)
        + "; fid, sfid and kid mean the same distances, whatever the extractor (default: all that "
        "the extractor can give)",
    ),
    number(
        "--splits",
        DEFAULT_SPLITS,
        "parts of the Inception score's spread",
        field="inception_splits",
    ),
    number(
        "--resamples",
        100,
        "for the interval that stands beside the distance of few samples; 0 leaves it out",
        least=0,
    ),
    option(
        "--per-class",
        metavar="N",
        type=int,
        nargs="?",
        const=_FEWEST_OF_A_CLASS,
        help="the Frechet distance of each class too, of those with N images or more on both sides "
        f"({_FEWEST_OF_A_CLASS} if N is left out); both sides need labels: a folder of class "
        "folders, or arr_1 in an .npz",
    ),
    path("--per-class-csv", "write the classes' distances as CSV"),
    option(
        "--export",
        metavar=f"{_EXPORT}NPZ",
        type=_export,
        help="write the samples as ADM's evaluator reads them",
    ),
    path("--json", "write all of it as JSON"),
    RUNS_DIR,
)
def evaluate(options: argparse.Namespace) -> int:
    """Measure images from anywhere: FID, sFID, KID, IS, precision and recall.

    Compares samples with real images, and prints each figure with all that it depends on. On
    Inception features the distances are FID, sFID and KID; on others they bear the extractor's
    name.

    Examples: python -m harness evaluate SAMPLES REAL --extractor efficientnet_lite0; python -m
    harness evaluate --samples samples.npz --reference VIRTUAL_imagenet256_labeled.npz
    """
    from rich.console import Console

    from harness.evaluation.standalone.evaluate import run_evaluation
    from harness.evaluation.standalone.spec import EvaluateSpec
    from harness.evaluation.standalone.table import print_evaluation
    from harness.terminal.progress import ProgressView

    _check(options)
    spec = spec_of(EvaluateSpec, options)
    aside = Console(stderr=True)
    evaluation = run_evaluation(spec, options.processes, lambda unit: ProgressView(aside, unit))
    if evaluation is None:
        return 0
    print_evaluation(evaluation, Console())
    for file in spec.outputs:
        if str(file) not in evaluation.unwritten:
            print(file)
    if evaluation.unwritten:
        reasons = [f"{file} ({reason})" for file, reason in evaluation.unwritten.items()]
        raise UserError(f"the figures stand above, but could not be written: {', '.join(reasons)}")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Complete options that depend on one another, or raise a UserError."""
    images = options.images
    if len(images) == 2 and options.samples is None and options.reference is None:
        options.samples, options.reference = images[0], Path(images[1])
    elif images or options.samples is None or options.reference is None:
        raise UserError(
            "evaluate needs SAMPLES and REFERENCE, as two words or as --samples and --reference; "
            "`evaluate --help` tells what they may be, `evaluate build-reference` makes a reference"
        )
    if options.resamples == 1:
        raise UserError("--resamples is 1, but a spread needs 2; 0 leaves the interval out")
    if options.per_class is not None and options.per_class < 2:
        raise UserError(f"--per-class is {options.per_class}, but a distance needs 2 images")
    if options.per_class_csv is not None and options.per_class is None:
        raise UserError("--per-class-csv writes what --per-class measures: give that too")


@command(
    option(
        "source",
        metavar="SOURCE",
        help="a folder of images of one size, an .npz with arr_0, a .npy; with --manifest, images "
        "packed in any way; or scale:NAME, the training images of a scale",
    ),
    path("out", "the .npz to write"),
    overrides("change a field of a scale's data, such as data.path=..."),
    *extraction("inception", "inception"),
    path("--manifest", "which images, from data make-manifest"),
    number("--resolution", None, "pixels a side, for images of a manifest"),
    option(
        "--layout",
        choices=("features", "adm"),
        default="features",
        help="keep features of single images, or the images themselves, as ADM's files do",
    ),
    number(
        "--single-images",
        10_000,
        "keep features (or images) of so many at most, for KID, precision and recall",
    ),
    EXPERIMENTS_DIR,
    name=BUILD_REFERENCE,
)
def build_reference(options: argparse.Namespace) -> int:
    """Store statistics and features of real images.

    Looks at all images once and writes mean, covariance, features of single images and where all of
    it comes from to OUT, an .npz that pytorch-fid reads too, and ADM's evaluator with --layout adm.

    Examples: python -m harness evaluate build-reference images/ reference.npz; ... build-reference
    imagenet/train reference.npz --manifest sub-in-100.json --resolution 256; ... build-reference
    scale:cifar10 cifar10.npz data.path=cifar-10-batches-py
    """
    from rich.console import Console

    from harness.evaluation.standalone.reference import run_build
    from harness.evaluation.standalone.spec import BuildSpec
    from harness.terminal.progress import ProgressView

    if options.out.suffix != ".npz":
        raise UserError(f"OUT is {options.out}, but must end in .npz")
    spec = spec_of(BuildSpec, options)
    with ProgressView(Console(stderr=True)) as view:
        built = run_build(spec, options.processes, view)
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
