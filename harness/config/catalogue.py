"""What the experiments folder offers, by kind. Cheap: imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.config.ablation_file import QUESTION, read_ablation_file
from harness.config.layers import ABOUT, SAFE_NAME, about_line, load_layers
from harness.config.mistakes import COMMAND_LINE, Mistake, Origin, nearest_name
from harness.config.search_file import read_search_file
from harness.config.yaml_source import read_yaml, shown_path

Kind = Literal["ablation", "search", "scale", "cluster"]
"""Also the name of the folder that holds the files."""

_SUFFIX = ".yaml"


@dataclass(frozen=True)
class Listed:
    """One file of the catalogue: its name, its question or purpose, and what is wrong with it."""

    name: str
    about: str
    error: str | None


def list_ablations(experiments_dir: Path) -> tuple[Listed, ...]:
    """All ablations by name, broken files included."""
    return _listed("ablation", QUESTION, read_ablation_file, experiments_dir)


def list_searches(experiments_dir: Path) -> tuple[Listed, ...]:
    """All searches by name, broken files included."""
    return _listed("search", QUESTION, read_search_file, experiments_dir)


def list_scales(experiments_dir: Path) -> tuple[Listed, ...]:
    """All scales by name, broken files included."""

    def check(path: Path, mistakes: list[Mistake]) -> None:
        load_layers(path, experiments_dir, mistakes)

    return _listed("scale", ABOUT, check, experiments_dir)


def names(kind: Kind, experiments_dir: Path) -> tuple[str, ...]:
    """The names that the command line accepts, sorted."""
    found = (path.name.removesuffix(_SUFFIX) for path in _files(kind, experiments_dir))
    return tuple(name for name in found if SAFE_NAME.fullmatch(name))


def find_file(kind: Kind, name: str, experiments_dir: Path, mistakes: list[Mistake]) -> Path | None:
    """The file behind a name. A name is looked up in the listing and never becomes a path, so none
    leads out of the folder."""
    valid = names(kind, experiments_dir)
    if name in valid:
        return experiments_dir / kind / f"{name}{_SUFFIX}"
    expected = f"one of {', '.join(valid)}" if valid else None
    where = "" if valid else f": {shown_path(experiments_dir / kind)} holds no {_SUFFIX} file"
    problem = f"unknown {kind} '{name}'{where}"
    mistakes.append(Mistake(COMMAND_LINE, kind, problem, expected, nearest_name(name, valid)))
    return None


def _files(kind: Kind, experiments_dir: Path) -> list[Path]:
    return sorted(path for path in (experiments_dir / kind).glob(f"*{_SUFFIX}") if path.is_file())


def _listed(
    kind: Kind,
    about_key: str,
    check: Callable[[Path, list[Mistake]], object],
    experiments_dir: Path,
) -> tuple[Listed, ...]:
    listed = []
    for path in _files(kind, experiments_dir):
        mistakes: list[Mistake] = []
        document = read_yaml(path, mistakes)
        about = "" if document is None else about_line(document, about_key, [])
        name = path.name.removesuffix(_SUFFIX)
        if not SAFE_NAME.fullmatch(name):
            problem = "a name has letters, digits, _, . and - only"
            mistakes.append(Mistake(Origin(shown_path(path)), "", problem))
        if not mistakes:
            check(path, mistakes)
        listed.append(Listed(name, about, str(mistakes[0]) if mistakes else None))
    return tuple(listed)
