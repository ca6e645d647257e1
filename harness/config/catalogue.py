"""What the experiments folder offers, by kind. Cheap: imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from harness.config.layers import is_safe_name
from harness.config.mistakes import COMMAND_LINE, Mistake, nearest_name
from harness.config.yaml_source import shown_path

Kind = Literal["ablation", "search", "scale", "cluster"]
"""Also the name of the folder that holds the files."""

SUFFIX = ".yaml"


def names(kind: Kind, experiments_dir: Path) -> tuple[str, ...]:
    """The names that the command line accepts, sorted."""
    found = (path.name.removesuffix(SUFFIX) for path in files(kind, experiments_dir))
    return tuple(name for name in found if is_safe_name(name))


def find_file(kind: Kind, name: str, experiments_dir: Path, mistakes: list[Mistake]) -> Path | None:
    """The file behind a name. A name is looked up in the listing and never becomes a path, so none
    leads out of the folder."""
    valid = names(kind, experiments_dir)
    if name in valid:
        return experiments_dir / kind / f"{name}{SUFFIX}"
    expected = f"one of {', '.join(valid)}" if valid else None
    where = "" if valid else f": {shown_path(experiments_dir / kind)} holds no {SUFFIX} file"
    problem = f"unknown {kind} '{name}'{where}"
    mistakes.append(Mistake(COMMAND_LINE, kind, problem, expected, nearest_name(name, valid)))
    return None


def files(kind: Kind, experiments_dir: Path) -> list[Path]:
    """All files of one kind, sorted by path."""
    return sorted(path for path in (experiments_dir / kind).glob(f"*{SUFFIX}") if path.is_file())
