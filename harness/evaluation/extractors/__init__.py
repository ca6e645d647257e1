"""Feature extractors, found by the names of the modules in this package."""

from __future__ import annotations

import importlib
import pkgutil

from harness.evaluation.extractors.base import FeatureExtractor

_CONTRACT = "base"


def extractor_names() -> tuple[str, ...]:
    """The names of all extractors, sorted, found without importing them."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if name != _CONTRACT))


def load_extractor(name: str) -> FeatureExtractor:
    """Load one extractor with its weights, on the CPU and in eval mode.

    Raises:
        KeyError: no module of that name is in this package.
        UserError: its weights are not installed, or are not the ones expected.
    """
    if name not in extractor_names():
        raise KeyError(name)
    module = importlib.import_module(f"{__name__}.{name}")
    extractor: FeatureExtractor = module.Extractor().eval()
    return extractor
