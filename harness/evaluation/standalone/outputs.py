"""The files that an evaluation is written to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.evaluate_classes import NamedClasses, classes_csv
from harness.evaluation.standalone.spec import EvaluateOrder
from harness.machine.files import check_writable, write_text
from harness.machine.npz import ImageRows, export_adm
from models.errors import UserError


def check_outputs(order: EvaluateOrder) -> None:
    """See before anything is computed that what is written can be.

    Raises:
        UserError: a file cannot be written there, or its name does not fit.
    """
    for path in order.outputs:
        check_writable(path)
    if order.export is not None and order.export.suffix != ".npz":
        raise UserError(f"--export adm={order.export} must end in .npz")


def write_outputs(
    order: EvaluateOrder,
    images: ImageRows,
    report: Mapping[str, Any],
    classes: NamedClasses | None,
) -> dict[str, str]:
    """Write what is asked for.

    Args:
        order: says what, and where.
        images: the samples.
        report: of the evaluation, as JSON takes it.
        classes: None where they were not measured.

    Returns:
        The files that could not be written, and why. It is no error: hours of work may lie behind
        the figures, which can still be printed.
    """
    writers: dict[Path, Callable[[Path], None]] = {}
    if order.export is not None:
        writers[order.export] = lambda path: export_adm(images, path)
    if order.json is not None:
        writers[order.json] = lambda path: write_text(path, json.dumps(report, indent=2) + "\n")
    if classes is not None and order.per_class_csv is not None:
        csv = classes_csv(classes, str(report["identity"]["extractor"]))
        writers[order.per_class_csv] = lambda path: write_text(path, csv)
    failed = {}
    for path, write in writers.items():
        try:
            write(path)
        except OSError as error:
            failed[str(path)] = str(error)
    return failed
