"""What a process is told to do for one trial, and what the trial leaves behind.

Kept apart from the trial itself, so that whoever hands trials out need not import what trains.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness.config.load import Trial
from harness.config.schema import TrialConfig
from harness.config.sections import Section
from harness.config.trial_hash import HASH_VERSION
from harness.machine.files import DamagedFileError, read_json
from harness.vocabulary.names import short_hash

RESULT = "result.json"
FLOOR = "real against real"
"""What the scores of held-out real images are shown as, beside the keys of trials."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialSpec:
    """All that a process needs to run one trial; can be written as JSON."""

    config: dict[str, Any]
    """Of the trial, plain."""
    variant: str
    scale: str
    hash: str
    folder: str
    """Of the trial."""
    references: str
    """Where features of real images are kept."""
    parent: str
    """The folder of the ablation's journal."""
    store_uri: str
    root: str
    """The repository's, for artifacts and the git commit."""
    threads: int
    side_by_side: int
    """How many trials share this machine while this one runs; speeds depend on it."""
    processes: int = 1
    """How many train it together."""
    tags: dict[str, str] = field(default_factory=dict)
    """Further tags of its run, such as the search that asked for it."""


def trial_key(trial: Trial) -> str:
    """What a trial is shown as."""
    return f"{trial.variant}/seed{trial.seed}"


def trial_folder(runs_dir: Path, trial: Trial) -> Path:
    """A trial's folder: the one with its hash where it exists, whatever variant's name it bears.

    A trial belongs to no ablation, and two ablations may call the same configuration differently.
    """
    own = runs_dir / trial.folder
    return own if own.exists() else next((runs_dir / trial.scale).glob(f"*/{own.name}"), own)


def finished_result(folder: Path) -> dict[str, Any] | None:
    """What a finished trial wrote down, or None: it has not finished, or the file is damaged, and
    the trial, whose weights and samples are there, has to be measured again."""
    return _written(folder / RESULT, ("metrics", "identity", "training", "tags"))


def finished_floor(path: Path) -> dict[str, Any] | None:
    """What `floor_file` holds, or None where it has to be measured."""
    return _written(path, ("metrics", "identity"))


def _written(path: Path, fields: Sequence[str]) -> dict[str, Any] | None:
    """A map of maps in a file, or None where it is not there or, with a warning, damaged."""
    try:
        found: dict[str, Any] = read_json(path, dict)
        if all(isinstance(found.get(field), dict) for field in fields):
            return found
    except FileNotFoundError:
        return None
    except DamagedFileError:
        pass
    _warn_of_damage(path)
    return None


@cache
def _warn_of_damage(path: Path) -> None:
    """Once for a file, however often a command looks at it."""
    _log.warning("%s is damaged; what it holds is measured again", path)


def floor_file(config: TrialConfig, references: Path) -> Path:
    """Where the scores of real images against real ones are kept, for all trials that share data
    and evaluation."""
    return references / f"floor-{_key({'data': config.data, 'evaluate': config.evaluate})}.json"


def precision_file(config: TrialConfig, references: Path, threads: int) -> Path:
    """Where the precision that `auto` stands for on a CPU is kept: one decision for all trials of a
    size, whatever their variant, so that all of them are trained in the same one."""
    key = _key({"data": config.data, "model": config.model})
    return references / f"precision-{threads}-{key}.json"


def _key(sections: Mapping[str, Section]) -> str:
    plain: dict[str, Any] = {name: section.model_dump() for name, section in sections.items()}
    # Other code may measure otherwise what an unchanged configuration asks for.
    plain["version"] = HASH_VERSION
    return short_hash(hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest())


def extractor_files(config: TrialConfig) -> tuple[str, Path | None, int | None]:
    """The extractor's name, the file of its weights where one is named, and its images' side."""
    asked = config.evaluate
    file = None if asked.extractor_weights is None else Path(asked.extractor_weights)
    return asked.extractor, file, asked.extractor_size


def check_extractor_sizes(configs: Iterable[TrialConfig]) -> None:
    """See before any trial starts that extractors take the sizes that are asked of them.

    Raises:
        UserError: one does not, or its weights are missing.
    """
    asked = {extractor_files(one) for one in configs if one.evaluate.extractor_size is not None}
    if asked:
        # It builds the networks, though without weights: seconds that others need not wait for.
        from harness.evaluation.extractors import check_extractor

        for name, weights, size in sorted(asked, key=str):
            check_extractor(name, weights, size)
