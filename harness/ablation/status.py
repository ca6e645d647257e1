"""How far an ablation is, and the end of its jobs, for commands that did not begin them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.cluster.slurm.queue import cancel_jobs, read_record
from harness.config.load import Ablation
from harness.data.datasets import bind_content
from harness.processes.lock import describe_holder, is_locked
from harness.trial.spec import FLOOR, RESULT, floor_file, trial_folder, trial_key
from harness.trial_state import QUEUE_TIMEOUT_SECONDS, StateReader, TrialState


@dataclass(frozen=True)
class ProgressRow:
    """One trial, by the name that other commands show it under, and its state."""

    key: str
    state: TrialState


class AblationProgress:
    """Looks at the files of an ablation's trials each time that it is asked."""

    def __init__(self, ablation: Ablation, runs_dir: Path) -> None:
        """Raises `UserError` where the trials depend on data that are not there."""
        self._results = results_of(ablation, runs_dir)
        self._reader = StateReader(self._note)
        self._notices: list[str] = []

    def rows(self) -> list[ProgressRow]:
        """All trials in the order of their runs; the floor where it has a job of its own."""
        keys = [key for key, path in self._results.items() if key != FLOOR or read_record(path)]
        states = self._reader.read([self._results[key] for key in keys])
        return [ProgressRow(key, state) for key, state in zip(keys, states, strict=True)]

    def notices(self) -> list[str]:
        """What could not be found out since the last call."""
        notices, self._notices = self._notices, []
        return notices

    def _note(self, text: str) -> None:
        self._notices.append(text)


def results_of(ablation: Ablation, runs_dir: Path) -> dict[str, Path]:
    """The file of each trial's result, and that of the floor, by what they are shown as.

    Raises:
        UserError: the trials depend on data that are not there.
    """
    bound, runs_dir = bind_content(ablation), runs_dir.resolve()
    floor = floor_file(bound.trials[0].config, runs_dir / "references")
    trials = {trial_key(trial): trial_folder(runs_dir, trial) / RESULT for trial in bound.trials}
    return {FLOOR: floor, **trials}


def cancel_ablation(ablation: Ablation, runs_dir: Path) -> list[str]:
    """End the queued and running jobs of an ablation.

    Returns:
        Lines that say what was done, and what has to be done by hand.

    Raises:
        SlurmError: there are jobs, and SLURM gives no answer.
    """
    results = results_of(ablation, runs_dir)
    submitted = [path for path in results.values() if not path.exists() and read_record(path)]
    ids = cancel_jobs(submitted, QUEUE_TIMEOUT_SECONDS) if submitted else {}
    lines = [f"{key}: job {ids[path]} cancelled" for key, path in results.items() if path in ids]
    for key, path in results.items():
        if path not in ids and key != FLOOR and is_locked(path.parent):
            lines.append(
                f"{key}: {describe_holder(path.parent)} runs it without SLURM; Ctrl-C in its "
                "terminal, or a SIGTERM to the command that started it, ends it"
            )
    return lines or ["nothing of this ablation is queued or running"]
