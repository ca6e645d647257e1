"""What `harness evaluate` prints: a figure a line, then all that they depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.evaluation.metrics.uncertainty import Uncertainty
from harness.evaluation.quality import Quality
from harness.vocabulary.metrics import FRECHET, INCEPTION, METRICS, Metric

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from harness.evaluation.standalone.evaluate import Evaluation
    from harness.evaluation.standalone.outputs import NamedClasses

_SHOWN_DIGITS = 12
_SHOWN_CLASSES = 20
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
    """Title, figure, and what it was taken over, a row a metric.

    Args:
        quality: the figures.
        uncertainty: of the Frechet distance; its rows come below that one.
        display: the extractor's name, which titles bear unless it is Inception.
    """
    extractor = str(quality.identity["extractor"])
    rows = []
    for metric in METRICS:
        figure = quality.figures.get(metric.key)
        if figure is None:
            continue
        value, std = (
            None if number is None else f"{number / metric.unit:.{metric.fine_decimals}f}"
            for number in (figure.value, figure.std)
        )
        shown = f"{value}" if std is None else f"{value} \u00b1 {std}"
        rows.append((_heading(metric, extractor, display), shown, figure.basis))
        if metric is FRECHET:
            rows += _uncertain_rows(metric.printed_title(extractor), uncertainty)
    return rows


def _heading(metric: Metric, extractor: str, display: str) -> str:
    of = "" if extractor == INCEPTION else f" ({display})"
    return f"{metric.printed_title(extractor)}{of} {metric.direction.arrow}"


def _uncertain_rows(title: str, uncertainty: Uncertainty | None) -> list[tuple[str, str, str]]:
    if uncertainty is None:
        return []
    interval, line = uncertainty.interval, uncertainty.extrapolation
    low, high = interval.centred
    rows = [
        (
            f"  {interval.confidence:.0%} interval",
            f"{low:.4f} to {high:.4f}",
            f"{interval.resamples} resamples of the samples",
        )
    ]
    if line is not None:
        basis = f"a line over 1/N, from {line.sizes[0]:,} samples on, both sides shrunk"
        if line.value < 0:
            basis += "; below zero means that no distance can be told from zero"
        shown = f"{line.value:.4f} \u00b1 {line.standard_error:.4f}"
        rows.append((f"  {title} of unlimited images", shown, basis))
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
    extractor = str(evaluation.quality.identity["extractor"])
    title = FRECHET.printed_title(extractor)
    title = title if extractor == INCEPTION else f"{title} ({evaluation.display})"
    if distances.mean is not None:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("class", overflow="fold")
        table.add_column(
            f"{title} of {distances.samples:,} samples and {distances.reference:,} reference "
            f"images a class {FRECHET.direction.arrow}",
            justify="right",
        )
        by_name = sorted(classes.by_name.items(), key=lambda item: -item[1])
        for name, value in by_name[:_SHOWN_CLASSES]:
            table.add_row(Text(name), f"{value:.4f}")
        if len(by_name) > _SHOWN_CLASSES:
            table.add_row(f"{len(by_name) - _SHOWN_CLASSES:,} nearer ones, in --json", "")
        table.add_row(f"mean of {len(by_name):,} classes", f"{distances.mean:.4f}")
        console.print(table)
    if classes.mapping:
        console.print(classes.mapping, highlight=False, markup=False, soft_wrap=True)
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
