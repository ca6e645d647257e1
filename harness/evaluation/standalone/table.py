"""What `harness evaluate` prints: a figure a line, then all that they depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.evaluation.metrics.per_class import PerClassDistance
from harness.evaluation.metrics.uncertainty import Uncertainty
from harness.evaluation.quality import Quality
from harness.vocabulary.metrics import FRECHET, INCEPTION, METRICS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from harness.evaluation.standalone.evaluate import Evaluation

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
    from rich.text import Text

    table = _empty_table("figure", "value", "")
    for row in figure_rows(evaluation.quality, evaluation.uncertainty, evaluation.display):
        table.add_row(*map(Text, row))
    console.print(table)
    if evaluation.per_class is not None:
        _print_classes(evaluation.per_class, evaluation, console)
    for line in _facts(evaluation):
        _print_line(console, line)
    for warning in evaluation.warnings:
        _print_line(console, f"! {warning}", "yellow")


def _print_line(console: Console, line: str, style: str | None = None) -> None:
    console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def _empty_table(*columns: str) -> Table:
    """With figures in the second column."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place == 1 else "left", overflow="fold")
    return table


def figure_rows(
    quality: Quality, uncertainty: Uncertainty | None, display: str
) -> list[tuple[str, str, str]]:
    """Title, figure, and what it was taken over, a row a metric; below the Frechet distance its
    uncertainty. Titles bear the extractor's name `display` unless it is Inception."""
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
        title = metric.printed_title(extractor)
        heading = f"{title}{_of_extractor(quality, display)} {metric.direction.arrow}"
        rows.append((heading, shown, figure.basis))
        if metric is FRECHET and uncertainty is not None:
            rows += _uncertain_rows(title, uncertainty)
    return rows


def _of_extractor(quality: Quality, display: str) -> str:
    return "" if quality.identity["extractor"] == INCEPTION else f" ({display})"


def _uncertain_rows(title: str, uncertainty: Uncertainty) -> list[tuple[str, str, str]]:
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


def _print_classes(classes: PerClassDistance, evaluation: Evaluation, console: Console) -> None:
    """The farthest classes; all of them are in the files."""
    from rich.text import Text

    if classes.mean is not None:
        heading = FRECHET.printed_title(str(evaluation.quality.identity["extractor"]))
        heading += _of_extractor(evaluation.quality, evaluation.display)
        table = _empty_table(
            "class",
            f"{heading} of {classes.samples:,} samples and {classes.reference:,} reference "
            f"images a class {FRECHET.direction.arrow}",
        )
        by_name = sorted(classes.by_class.items(), key=lambda item: -item[1])
        for name, value in by_name[:_SHOWN_CLASSES]:
            table.add_row(Text(name), f"{value:.4f}")
        if len(by_name) > _SHOWN_CLASSES:
            table.add_row(f"{len(by_name) - _SHOWN_CLASSES:,} nearer ones, in --json", "")
        table.add_row(f"mean of {len(by_name):,} classes", f"{classes.mean:.4f}")
        console.print(table)
    if classes.mapping:
        _print_line(console, classes.mapping)
    if classes.left_out:
        name, reason = next(iter(classes.left_out.items()))
        left_out = f"{len(classes.left_out):,} classes left out"
        _print_line(console, f"! {left_out}: the first, {name}, has {reason}", "yellow")


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
