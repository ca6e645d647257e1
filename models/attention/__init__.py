"""Attention variants, found by the names of the modules in this package."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from models.attention.base import AttentionBlock, AttentionConfig, AttentionShape


@dataclass(frozen=True)
class Variant:
    """One attention variant: its one-line description, configuration and module."""

    name: str
    question: str
    config: type[AttentionConfig]
    block: type[AttentionBlock]


def variant_names() -> tuple[str, ...]:
    """The names of all variants, sorted, found without importing them."""
    found = {module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg}
    return tuple(sorted(found - {"base"}))


def load_variant(name: str) -> Variant:
    """Import one variant; KeyError where no module of that name is in this package."""
    if name not in variant_names():
        raise KeyError(name)
    module = importlib.import_module(f"{__name__}.{name}")
    return Variant(name, module.QUESTION, module.Config, module.Attention)


def build_attention(config: AttentionConfig, shape: AttentionShape) -> AttentionBlock:
    """Build the block that a variant's configuration describes."""
    # The base class takes other arguments than the variants that are built here.
    block: Any = load_variant(config.name).block
    built: AttentionBlock = block(config, shape)
    return built


if TYPE_CHECKING:
    AnyAttention = AttentionConfig
else:
    AnyAttention = Annotated[
        reduce(or_, [load_variant(name).config for name in variant_names()]),
        Field(discriminator="name"),
    ]
"""The configuration of any variant; of a mapping, `name` says which variant's fields it holds."""
