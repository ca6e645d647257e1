"""Feature extractors, found by the names of the modules in this package."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from harness.evaluation.extractors.base import FeatureExtractor
from models.errors import UserError

_FAMILIES = {"torch": "timm_model"}
"""What stands before a colon, and the module that takes what stands after it."""
_NO_EXTRACTORS = ("base", "weights_file", *_FAMILIES.values())


def extractor_names() -> tuple[str, ...]:
    """The names of all extractors without a colon, sorted, found without importing them."""
    found = (module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    return tuple(sorted(name for name in found if name not in _NO_EXTRACTORS))


def load_extractor(name: str, weights: Path | None = None) -> FeatureExtractor:
    """Load one extractor with its weights, on the CPU and in eval mode.

    Args:
        name: one of `extractor_names()`, or `torch:MODEL`, a model of timm.
        weights: the file; None takes the extractor's own where it has some.

    Raises:
        UserError: there is no such extractor, or its weights are missing, damaged or not those
            expected.
    """
    module, arguments = _find(name)
    return module.load(*arguments, weights).eval()


def check_extractor(name: str, weights: Path | None = None) -> None:
    """See that the weights are there, without loading them.

    Raises:
        UserError: there is no such extractor, or its weights are missing.
    """
    module, arguments = _find(name)
    module.check(*arguments, weights)


def _find(name: str) -> tuple[ModuleType, tuple[str, ...]]:
    """The extractor's module, and what its functions take before the weights."""
    family, _, model = name.partition(":")
    if family in _FAMILIES and model:
        return _module(_FAMILIES[family]), (model,)
    if name in extractor_names():
        return _module(name), ()
    names = (*extractor_names(), *(f"{known}:MODEL" for known in _FAMILIES))
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UserError(f"there is no extractor {name!r}; expected one of {', '.join(names)}{hint}")


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")
