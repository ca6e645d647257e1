"""A trial's folder, from whatever a person names it by."""

from __future__ import annotations

from pathlib import Path

from harness.machine.environment import ROOT
from harness.tracking.publisher import find_journals, run_id_of
from harness.tracking.store import open_store
from harness.vocabulary import names
from models.errors import UserError


def find_trial(run: str, runs_dir: Path) -> Path:
    """The folder of a trial.

    Raises:
        UserError: neither a trial's folder nor a run that was made here bears that name.
    """
    for folder in (Path(run), runs_dir / run):
        if folder.is_dir():
            if not (folder / names.ARTIFACT_CONFIG).is_file():
                raise UserError(
                    f"{folder} is not the folder of a trial, since it holds no "
                    f"{names.ARTIFACT_CONFIG}; a trial's is {runs_dir}/SCALE/VARIANT/seedN-HASH"
                )
            return folder.resolve()
    store = open_store(ROOT)
    for folder in find_journals(runs_dir):
        if run_id_of(folder, store) == run:
            if (folder / names.ARTIFACT_CONFIG).is_file():
                return folder.resolve()
            raise UserError(f"MLflow run {run} is not a trial's, but that of {folder}")
    raise UserError(
        f"{run} is neither a trial's folder ({runs_dir}/SCALE/VARIANT/seedN-HASH) nor the MLflow "
        f"run id of a trial in {runs_dir}"
    )
