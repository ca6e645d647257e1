"""Feature extractors, found by the names of the modules in this package."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.config.discovery import extractors, offer_of
from harness.config.mistakes import nearest_name
from harness.evaluation.extractors.base import FeatureExtractor
from models.errors import UserError


def extractor_names() -> tuple[str, ...]:
    """The names of all extractors without a colon, sorted, found without importing them."""
    return tuple(name for name, offer in extractors().items() if not offer.is_family)


def load_extractor(
    name: str, weights: Path | None = None, size: int | None = None
) -> FeatureExtractor:
    """Load one extractor with its weights, on the CPU and in eval mode.

    Args:
        name: one of `extractor_names()`, or `torch:MODEL`, a model of timm.
        weights: the file; None takes the extractor's own where it has some.
        size: pixels a side that images are resized to, of an extractor that leaves the choice;
            None takes the published one, or the network's own.

    Raises:
        UserError: there is no such extractor, it takes no such size, or its weights are missing,
            damaged or not those expected.
    """
    module, arguments = _find(name, weights, size)
    extractor: FeatureExtractor = module.load(*arguments).eval()
    extractor.weights_file = weights
    return extractor


def check_extractor(name: str, weights: Path | None = None, size: int | None = None) -> None:
    """See that `load_extractor` finds what it needs, without loading the weights.

    Raises:
        UserError: there is no such extractor, it takes no such size, or its weights are missing.
    """
    module, arguments = _find(name, weights, size)
    module.check(*arguments)


def _find(name: str, weights: Path | None, size: int | None) -> tuple[ModuleType, list[Any]]:
    """The extractor's module, and what its `load` and `check` take."""
    offers = extractors()
    offer = offer_of(name, offers)
    if offer is None:
        shown = [it.shown for it in offers.values()]
        near = nearest_name(name, shown)
        hint = f" (did you mean {near}?)" if near else ""
        raise UserError(f"there is no extractor {name!r}; expected one of {', '.join(shown)}{hint}")
    sized = bool(offer.constants.get("SIZED"))
    if size is not None and not sized:
        raise UserError(f"the extractor {name} sees images of one size: leave its size out")
    member = name.partition(":")[2]
    arguments = [*([member] if member else []), weights, *([size] if sized else [])]
    return importlib.import_module(offer.module), arguments
