"""A merged configuration against the schema, with every error as a mistake of the user's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from harness.config.expectation import allowed_values, members_by_name
from harness.config.merge import merge
from harness.config.mistakes import Mistake, Origin, nearest_name
from harness.config.place import Place, all_keys, find_place, union_tags
from harness.config.yaml_source import Node, quoted

Schema = TypeVar("Schema", bound=BaseModel)

_DOTTED = re.compile(r"[a-z_]+(?:\.[a-z_]+)+")


def validate(
    schema: type[Schema], layers: Sequence[Node], mistakes: list[Mistake]
) -> Schema | None:
    """Merge the layers, weakest first, and check them.

    Returns:
        The configuration; None, and every mistake, where there are some.
    """
    tree = merge(layers, union_tags(schema))
    try:
        return schema.model_validate(tree.plain())
    except ValidationError as error:
        translator = _Translator(schema, layers, tree)
        for details in error.errors(include_url=False):
            mistakes.extend(translator.mistakes_of(details))
        return None


def check_keys(schema: type[BaseModel], layer: Node, mistakes: list[Mistake]) -> None:
    """Check the keys of a single layer, for when there is nothing to merge it with."""
    valid = list(all_keys(schema))
    for key, origin in _leaves(layer, ""):
        if key not in valid:
            mistakes.append(Mistake(origin, key, "unknown key", nearest=nearest_name(key, valid)))


class _Translator:
    def __init__(self, schema: type[BaseModel], layers: Sequence[Node], tree: Node) -> None:
        self.schema = schema
        self.layers = layers
        self.tree = tree

    def mistakes_of(self, details: Mapping[str, Any]) -> list[Mistake]:
        """One error of pydantic's; an error of ours may hold several lines."""
        place = find_place(self.schema, details["loc"])
        match details["type"]:
            case "extra_forbidden":
                return [self._unknown_key(place)]
            case "missing" if not place.inside_value:
                return [self._missing_key(place)]
            case "union_tag_invalid" | "union_tag_not_found":
                return [self._unknown_name(place)]
            case "value_error":
                lines = str(details["ctx"]["error"]).splitlines()
                return [self._does_not_fit(place, line) for line in lines]
            case _:
                return [self._wrong_value(place)]

    def _unknown_key(self, place: Place) -> Mistake:
        key, (*above, name) = _dotted(place), place.path
        siblings = list(place.section.model_fields)
        everywhere = list(all_keys(self.schema))
        suggestion = None
        # Otherwise the key is right, but belongs to another member of the union.
        if key not in everywhere:
            nearest = nearest_name(name, siblings)
            suggestion = _elsewhere(name, everywhere, ".".join(above))
            if nearest is not None:
                suggestion = ".".join([*above, nearest])
        belongs = place.tag is not None and "name" in siblings
        problem = f"unknown key for {place.tag}" if belongs else "unknown key"
        expected = None if suggestion else f"one of {', '.join(siblings)}"
        return Mistake(self._origin(place.path), key, problem, expected, suggestion)

    def _missing_key(self, place: Place) -> Mistake:
        origin = self._origin(place.path)
        return Mistake(origin, _dotted(place), "missing key", place.expected())

    def _unknown_name(self, place: Place) -> Mistake:
        """A union is told by its tag; the tag is missing or names no member."""
        if place.field is None:
            return self._wrong_value(place)
        tag = str(place.field.discriminator)
        names = list(members_by_name(place.field))
        path = (*place.path, tag)
        node = self.tree.find(path)
        nearest = None
        if node is None:
            problem = "missing key"
        else:
            problem = f"unknown {place.path[-1]} {quoted(node)}"
            nearest = nearest_name(str(node.value), names)
        expected = f"one of {', '.join(names)}"
        return Mistake(self._origin(path), ".".join(path), problem, expected, nearest)

    def _wrong_value(self, place: Place) -> Mistake:
        node = self.tree.find(place.path)
        problem, nearest = "wrong value", None
        if node is not None:
            problem = f"got {quoted(node)}"
            if isinstance(node.value, str):
                allowed = [str(value) for value in allowed_values(place.annotation)]
                nearest = nearest_name(node.value, allowed)
        origin = self._origin(place.path)
        return Mistake(origin, _dotted(place), problem, place.expected(), nearest)

    def _does_not_fit(self, place: Place, problem: str) -> Mistake:
        """Keys that contradict each other: the one set last is the one to look at."""
        named = [tuple(key.split(".")) for key in _DOTTED.findall(problem)]
        paths = [path for path in [*named, place.path] if path and self.tree.find(path)]
        if not paths:
            return Mistake(self._origin(place.path), _dotted(place), problem)
        latest = max(paths, key=self._layer_of)
        return Mistake(self._origin(latest), ".".join(latest), problem)

    def _layer_of(self, path: tuple[str, ...]) -> int:
        setting = [index for index, layer in enumerate(self.layers) if layer.find(path)]
        return max(setting, default=-1)

    def _origin(self, path: tuple[str, ...]) -> Origin:
        """Where a key was set; for one that was not, where its section was."""
        for length in range(len(path), 0, -1):
            node = self.tree.find(path[:length])
            if node is not None:
                return node.origin
        return self.tree.origin


def _dotted(place: Place) -> str:
    return ".".join(place.path)


def _elsewhere(name: str, keys: Sequence[str], section: str) -> str | None:
    """The keys of other sections whose own name is nearest."""
    by_name: dict[str, list[str]] = {}
    for key in dict.fromkeys(keys):
        above, _, own = key.rpartition(".")
        if not section or above != section:
            by_name.setdefault(own, []).append(key)
    nearest = nearest_name(name, list(by_name))
    return None if nearest is None else " or ".join(by_name[nearest])


def _leaves(node: Node, prefix: str) -> Iterator[tuple[str, Origin]]:
    for key, child in node.entries().items():
        if child.entries():
            yield from _leaves(child, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", child.origin
