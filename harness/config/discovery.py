"""What a configuration may name, found in the packages that hold it without importing them.

Samplers, extractors and data sets live on higher floors than the configuration, and importing them
would load their libraries. So the modules of a package are read as text: a module that defines the
function of its kind's contract offers the names in its `NAMES`, or else its own name; one with a
`FAMILY` offers every name `FAMILY:ANYTHING`. Its other constants, such as the objective that a
sampler solves, are what the configuration can check before anything is imported.
"""

from __future__ import annotations

import ast
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
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
            _refuse(f"one of {', '.join(shown)}", shown)
        return name

    return AfterValidator(check)


def matching(pattern: str, words: str) -> AfterValidator:
    """Accepts text that matches a pattern as a whole.

    Args:
        pattern: a regular expression.
        words: what such a text is, for the message.
    """

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            _refuse(words, ())
        return text

    return AfterValidator(check)


def _refuse(words: str, names: Sequence[str]) -> None:
    """Raise an error in pydantic's own form for a value that is none of those allowed."""
    quoted = ", ".join(f"'{name}'" for name in names)
    context = {"words": words, "expected": quoted}
    raise PydanticCustomError("literal_error", "Input should be {words}", context)


def _offers(package: str, function: str) -> Mapping[str, Offer]:
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return _read(package, tuple(folders or ()), function)


@cache
def _read(package: str, folders: tuple[str, ...], function: str) -> Mapping[str, Offer]:
    """The offers of all modules in the folders of a package, sorted by name."""
    found: dict[str, Offer] = {}
    for info in pkgutil.iter_modules(folders):
        path = Path(info.module_finder.path, f"{info.name}.py")  # type: ignore[union-attr]
        if info.ispkg:
            continue
        body = ast.parse(path.read_bytes()).body
        if not any(isinstance(node, ast.FunctionDef) and node.name == function for node in body):
            continue
        constants = _constants(body)
        names = constants.get("NAMES", (constants.get("FAMILY", info.name),))
        for name in names:
            found[name] = Offer(name, f"{package}.{info.name}", constants)
    return dict(sorted(found.items()))


def _constants(body: Sequence[ast.stmt]) -> dict[str, Any]:
    constants: dict[str, Any] = {}
    for node in body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name = node.targets[0].id
        if name.isupper() and not name.startswith("_"):
            try:
                constants[name] = ast.literal_eval(node.value)
            except ValueError:
                continue  # computed: not for the configuration to know
    return constants
