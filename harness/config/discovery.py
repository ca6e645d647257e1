"""What a configuration may name, found in the packages that hold it without importing them.

Samplers, extractors and data sets live on higher floors, and importing them would load their
libraries. So modules are read as text: one that defines the function of its kind's contract offers
the names in its `NAMES`, or else its own name; one with a `FAMILY` every name `FAMILY:ANYTHING`.
Its other constants, such as the objective that a sampler solves, can be checked as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError


@dataclass(frozen=True)
class Offer:
    """One name that a field may have."""

    name: str
    """For a family, what stands before the colon."""
    module: str
    """The whole name of the module that offers it."""
    constants: Mapping[str, Any]
    """The module's upper-case constants that are literals."""

    @property
    def is_family(self) -> bool:
        """Whether the name is followed by a colon and a member's name."""
        return "FAMILY" in self.constants

    @property
    def shown(self) -> str:
        """The name in messages."""
        return f"{self.name}:MODEL" if self.is_family else self.name


def samplers() -> Mapping[str, Offer]:
    """What `sample.sampler` may be, by name; `OBJECTIVE` is the objective that it solves."""
    return _offers("harness.sampling.samplers", "build")


def extractors() -> Mapping[str, Offer]:
    """What `evaluate.extractor` may be, by name or family. `WEIGHTS` says whether a file of weights
    is `required`, `optional` or `refused`, `SPATIAL` whether there are spatial features."""
    return _offers("harness.evaluation.extractors", "load")


def data_sets() -> Mapping[str, Offer]:
    """What `data.name` may be, by name; `FIELDS` are the optional fields of `data` that it uses."""
    return _offers("harness.data.datasets", "load")


def offer_of(name: str, offers: Mapping[str, Offer]) -> Offer | None:
    """The offer that a name in a configuration stands for; None where there is none."""
    family, colon, member = name.partition(":")
    found = offers.get(family)
    if found is None or found.is_family != bool(colon):
        return None
    return found if not colon or re.fullmatch(r"\w[\w.-]*", member, re.ASCII) else None


def offered_name(offers: Callable[[], Mapping[str, Offer]]) -> AfterValidator:
    """Accepts what is offered; a refusal lists all names, for the message's nearest one."""

    def check(name: str) -> str:
        found = offers()
        if offer_of(name, found) is None:
            shown = [offer.shown for offer in found.values()]
            raise _refusal(f"one of {', '.join(shown)}", shown)
        return name

    return AfterValidator(check)


def matching(pattern: str, words: str) -> AfterValidator:
    """Accepts text that a regular expression matches as a whole; `words` say what it is then."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise _refusal(words)
        return text

    return AfterValidator(check)


def _refusal(words: str, names: Sequence[str] = ()) -> PydanticCustomError:
    """An error in pydantic's own form for a value that is none of those allowed."""
    context = {"words": words, "expected": ", ".join(f"'{name}'" for name in names)}
    return PydanticCustomError("literal_error", "Input should be {words}", context)


def _offers(package: str, function: str) -> Mapping[str, Offer]:
    spec = find_spec(package)
    return _read(package, tuple(spec.submodule_search_locations or ()) if spec else (), function)


@cache
def _read(package: str, folders: tuple[str, ...], function: str) -> Mapping[str, Offer]:
    """The offers of all modules in the folders of a package, sorted by name."""
    found: dict[str, Offer] = {}
    for path in sorted(path for folder in folders for path in Path(folder).glob("*.py")):
        body = ast.parse(path.read_bytes()).body
        if any(isinstance(node, ast.FunctionDef) and node.name == function for node in body):
            constants = dict(_constants(body))
            for name in constants.get("NAMES", (constants.get("FAMILY", path.stem),)):
                found[name] = Offer(name, f"{package}.{path.stem}", constants)
    return dict(sorted(found.items()))


def _constants(body: Sequence[ast.stmt]) -> Iterator[tuple[str, Any]]:
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name.isupper() and not name.startswith("_"):
                # A computed one is not for the configuration to know.
                with suppress(ValueError):
                    yield name, ast.literal_eval(node.value)
