"""What `harness evaluate` prints: a figure a line, then all that they depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.evaluation.metrics.uncertainty import Uncertainty
from harness.evaluation.quality import DENSITY_NEIGHBOURS, NEIGHBOURS, Quality

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from harness.evaluation.standalone.evaluate import Evaluation
    from harness.evaluation.standalone.outputs import NamedClasses

_LOWER, _HIGHER = "\u2193", "\u2191"
_STANDARD = "inception"
_SHOWN_DIGITS = 12
_SHOWN_CLASSES = 20
_THOUSANDTHS = 1e3
_SAMPLING = (
    "objective",
    "sampler",
    "steps",
    "guidance_scale",
    "guidance_channels",
    "labels",
    "seed",
    "weights",
)


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """The table, what it depends on, and the warnings."""
    console.print(_table(evaluation))
    if evaluation.per_class is not None:
        _print_classes(evaluation.per_class, evaluation, console)
    for line in _facts(evaluation):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for warning in evaluation.warnings:
        console.print(f"! {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def figure_rows(
    quality: Quality, uncertainty: Uncertainty | None, display: str
) -> list[tuple[str, str, str]]:
    """Title, figure, and what stands behind it. On other features than Inception's, the distances
    bear the extractor's name and not that of FID."""
    standard = quality.identity["extractor"] == _STANDARD
    short, of = ("ID", "") if standard else ("D", f" ({display})")
    rows = []
    if quality.frechet_distance is not None:
        rows.append((f"F{short}{of} {_LOWER}", f"{quality.frechet_distance:.4f}", ""))
        rows += _uncertain_rows(f"F{short}", uncertainty)
    if quality.spatial_frechet_distance is not None:
        rows.append((f"sF{short}{of} {_LOWER}", f"{quality.spatial_frechet_distance:.4f}", ""))
    if quality.kernel_distance is not None:
        kernel = quality.kernel_distance
        rows.append(
            (
                f"K{short}{of} x 1000 {_LOWER}",
                f"{_THOUSANDTHS * kernel.mean:.4f} \u00b1 {_THOUSANDTHS * kernel.std:.4f}",
                f"over {kernel.subsets} subsets of {kernel.subset_size:,}",
            )
        )
    if quality.inception_score is not None:
        score = quality.inception_score
        splits = quality.identity["inception_splits"]
        rows.append(
            (
                f"IS{of} {_HIGHER}",
                f"{score.mean:.3f} \u00b1 {score.std:.3f}",
                f"over {splits} splits",
            )
        )
    if quality.neighbours is not None:
        for name, value in quality.neighbours._asdict().items():
            k = NEIGHBOURS if name in ("precision", "recall") else DENSITY_NEIGHBOURS
            rows.append((f"{name}{of} {_HIGHER}", f"{value:.4f}", f"k = {k}"))
    return rows


def _uncertain_rows(title: str, uncertainty: Uncertainty | None) -> list[tuple[str, str, str]]:
    rows = []
    if uncertainty is not None and uncertainty.interval is not None:
        interval = uncertainty.interval
        low, high = interval.centred
        rows.append(
            (
                f"  {interval.confidence:.0%} interval",
                f"{low:.4f} to {high:.4f}",
                f"{interval.resamples} resamples of the samples",
            )
        )
    if uncertainty is not None and uncertainty.extrapolation is not None:
        line = uncertainty.extrapolation
        rough = ", rough: few samples for so many dimensions" if uncertainty.rough else ""
        rows.append(
            (
                f"  {title} of unlimited samples",
                f"{line.value:.4f} \u00b1 {line.standard_error:.4f}",
                f"a line over 1/N, from {line.sizes[0]:,} samples on{rough}",
            )
        )
    return rows


def _table(evaluation: Evaluation) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("figure", overflow="fold")
    table.add_column("value", justify="right", overflow="fold")
    table.add_column("", overflow="fold")
    for row in figure_rows(evaluation.quality, evaluation.uncertainty, evaluation.display):
        table.add_row(*map(Text, row))
    return table


def _print_classes(classes: NamedClasses, evaluation: Evaluation, console: Console) -> None:
    """The farthest classes; all of them are in the files."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    distances = classes.distances
    standard = evaluation.quality.identity["extractor"] == _STANDARD
    title = "FID" if standard else f"FD ({evaluation.display})"
    if distances.mean is not None:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("class", overflow="fold")
        table.add_column(
            f"{title} of {distances.samples:,} samples and {distances.reference:,} reference "
            f"images a class {_LOWER}",
            justify="right",
        )
        by_name = sorted(classes.by_name.items(), key=lambda item: -item[1])
        for name, value in by_name[:_SHOWN_CLASSES]:
            table.add_row(Text(name), f"{value:.4f}")
        if len(by_name) > _SHOWN_CLASSES:
            table.add_row(f"{len(by_name) - _SHOWN_CLASSES:,} nearer ones, in --json", "")
        table.add_row(f"mean of {len(by_name):,} classes", f"{distances.mean:.4f}")
        console.print(table)
    if classes.left_out:
        name, reason = next(iter(classes.left_out.items()))
        console.print(
            f"! {len(classes.left_out):,} classes left out: the first, {name}, has {reason}",
            style="yellow",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _facts(evaluation: Evaluation) -> list[str]:
    identity = evaluation.quality.identity
    reference = identity["reference"]
    sampling = [f"{key.replace('_', ' ')} {identity[key]}" for key in _SAMPLING if key in identity]
    images = identity["reference_images"]
    singles = identity["reference_single_images"]
    return [
        f"samples: {identity['samples']:,} of {identity['resolution']} from "
        f"{identity['samples_source']} (SHA-256 {identity['samples_sha256'][:_SHOWN_DIGITS]})",
        *([f"sampling: {', '.join(sampling)}"] if sampling else []),
        f"reference: {'an unknown number of' if images is None else f'{images:,}'} images"
        f"{'' if singles is None else f', {singles:,} of them one by one'}, from "
        f"{reference.get('source', reference['file'])} "
        f"({identity['reference_fingerprint'][:_SHOWN_DIGITS]})",
        f"extractor: {evaluation.display}, weights "
        f"{identity['extractor_weights_sha256'][:_SHOWN_DIGITS]}, {identity['resize']}",
    ]
