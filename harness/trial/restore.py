"""The record of a finished trial, written anew where it was lost.

MLflow is sent what `tracking.jsonl` holds. Without it, or with a damaged first line, which says
what run the others belong to, a finished trial could never arrive there, although `result.json` has
all its figures. What `result.json` lacks are the curves of training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.config.load import Trial
from harness.config.serialisation import flatten
from harness.tracking.delivery import PUBLISHED_FILE
from harness.tracking.events import JOURNAL_FILE, first_event
from harness.tracking.journal import Journal
from harness.training.validation import BEST
from harness.trial.spec import finished_result
from harness.vocabulary import names

_PROBE = tuple(f"{names.ARTIFACT_PROBE}{suffix}" for suffix in (".csv", ".png"))
_ARTIFACTS = (
    names.ARTIFACT_CONFIG,
    names.ARTIFACT_GRID,
    names.ARTIFACT_GRID_IMAGES,
    *_PROBE,
    BEST,
)


def restore_journal(
    trial: Trial, folder: Path, parent: Path, on_notice: Callable[[str], None]
) -> None:
    """Write the journal of a finished trial from its result; nothing where it is there.

    Args:
        trial: that has finished.
        folder: of the trial.
        parent: folder of the ablation's journal, which has been started.
        on_notice: told where a journal was lost.
    """
    result = finished_result(folder)
    if result is None or first_event(folder) is not None:
        return
    journal_file = folder / JOURNAL_FILE
    on_notice(
        f"{journal_file} is lost or damaged: it is written anew from result.json, without the "
        "curves of the training"
    )
    if journal_file.exists():
        journal_file.replace(journal_file.with_suffix(".damaged"))
    # It counts the bytes of the lost one that MLflow has.
    (folder / PUBLISHED_FILE).unlink(missing_ok=True)
    journal = Journal(folder)
    journal.start(
        experiment=trial.scale,
        run_name=f"{trial.variant}/seed{trial.seed}",
        tags=result["tags"],
        params=flatten(trial.config),
        parent=parent,
    )
    journal.metrics(result["metrics"], step=result["training"]["steps"])
    for name in _ARTIFACTS:
        if (folder / name).is_file():
            journal.artifact(Path(name))
    journal.end("FINISHED", "finished")
    journal.close()
