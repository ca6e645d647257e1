"""Where encoded images come from: kinds of sources, each a module of this package (see `base`)."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from harness.data.sources.base import Entry, Recognised, Source, beginning, shorten
from harness.data.walk import walk_images
from models.errors import UserError

__all__ = ["Entry", "Source", "open_source"]

_COMPRESSED = {b"\x1f\x8b": "gzip", b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd"}


def open_source(path: Path) -> Source:
    """Recognise what a path names, without listing it.

    Files named after a split for validation or test are left out where others are for training.

    Raises:
        UserError: nothing is there, or nothing of a known kind, or things of several kinds.
    """
    kinds = _kinds()
    expected = f"expected {'; '.join(kind.EXPECTED for kind in kinds)}"
    try:
        if not path.exists():
            raise UserError(f"there is no {path}: {expected}")
        claims: list[Recognised] = [*filter(None, (kind.recognise(path) for kind in kinds))]
        chosen = [claim for claim in claims if claim.sure] or claims
        if len(chosen) > 1:
            there = " and ".join(claim.what for claim in chosen)
            raise UserError(f"{path} holds {there}: name the one or the other")
        if not chosen:
            raise _unknown(path, expected)
        return chosen[0].open()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _kinds() -> list[ModuleType]:
    """The modules of this package that say what they recognise, in the order of their names."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return [module for module in modules if "recognise" in vars(module)]


def _unknown(path: Path, expected: str) -> UserError:
    """What is there instead of images."""
    if path.is_dir():
        there = shorten([file.name for file in path.iterdir()])
        left_out = str(walk_images(path).left_out)
        return UserError(f"{path} holds {there}: {expected}{'; ' if left_out else ''}{left_out}")
    header = beginning(path)
    for magic, name in _COMPRESSED.items():
        if header.startswith(magic):
            return UserError(
                f"{path} is compressed with {name}, so that no image can be read alone: decompress "
                "it, as images gain nothing by it"
            )
    return UserError(f"{path} is a file of another kind: {expected}")
