"""A merged configuration against the schema, with every error as a mistake of the user's.

What a field of the schema accepts, in words: the second half of every message about it.

From a pydantic error's location to the key that the user wrote.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from harness.config.layers import merge
from harness.config.mistakes import Mistake, Origin, nearest_name
from harness.config.yaml_source import Node, quoted

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    types.NoneType: "null",
}

_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}


def is_union(annotation: Any) -> bool:
    """Whether an annotation is `A | B`."""
    return get_origin(annotation) in (Union, types.UnionType)


def is_section(annotation: Any) -> bool:
    """Whether an annotation is a model, whose fields are the keys of a section."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def allowed_values(annotation: Any) -> tuple[Any, ...]:
    """The values that the literals of an annotation name."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if is_union(annotation) or get_origin(annotation) is Annotated:
        return tuple(value for part in get_args(annotation) for value in allowed_values(part))
    return ()


def expected_words(annotation: Any, constraints: Sequence[Any] = ()) -> str:
    """What an annotation accepts, such as "a whole number >= 1 or null"."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        for item in metadata:
            if isinstance(item, annotated_types.DocInfo):
                return item.documentation
        return expected_words(inner, [*constraints, *_flat(metadata)])
    if is_union(annotation):
        parts = (expected_words(part, constraints) for part in get_args(annotation))
        return " or ".join(dict.fromkeys(parts))
    if origin is Literal:
        values = [str(value) for value in get_args(annotation)]
        return values[0] if len(values) == 1 else f"one of {', '.join(values)}"
    if origin is tuple:
        return _list_words(get_args(annotation)) + _bounds(constraints)
    if origin is dict or is_section(annotation):
        return "a section of keys" + _bounds(constraints)
    bounds = "" if annotation is types.NoneType else _bounds(constraints)
    return _WORDS.get(annotation, str(annotation)) + bounds


def members_by_name(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """The models that a union chooses from by a `name` or the like, sorted by that name."""
    tag = str(field.discriminator)
    members = (part for part in get_args(field.annotation) if is_section(part))
    named = {
        str(value): member
        for member in members
        for value in allowed_values(member.model_fields[tag].annotation)
    }
    return dict(sorted(named.items()))


def _list_words(items: Sequence[Any]) -> str:
    item = get_args(items[0])[0] if get_origin(items[0]) is Annotated else items[0]
    plural = _PLURALS.get(item, "values")
    return f"a list of {plural}" if items[-1] is Ellipsis else f"a list of {len(items)} {plural}"


def _flat(metadata: Sequence[Any]) -> list[Any]:
    """Constraints as `annotated_types` has them, out of pydantic's `Field(...)` too."""
    return [
        constraint
        for item in metadata
        for constraint in (item.metadata if isinstance(item, FieldInfo) else [item])
    ]


def _bounds(constraints: Sequence[Any]) -> str:
    words = []
    for constraint in constraints:
        match constraint:
            case annotated_types.Ge(ge=bound):
                words.append(f">= {bound}")
            case annotated_types.Gt(gt=bound):
                words.append(f"> {bound}")
            case annotated_types.Le(le=bound):
                words.append(f"<= {bound}")
            case annotated_types.Lt(lt=bound):
                words.append(f"< {bound}")
            case annotated_types.MultipleOf(multiple_of=unit):
                words.append(f"a multiple of {unit}")
    not_empty = any(isinstance(constraint, annotated_types.MinLen) for constraint in constraints)
    return (f" {' and '.join(words)}" if words else "") + (", not empty" if not_empty else "")


@dataclass(frozen=True)
class Place:
    """One key of a section, found in the schema."""

    path: tuple[str, ...]
    """The keys that lead to it in YAML. The tags that pydantic puts in are left out, and so is
    what lies inside a value: the index in a list, the branch of `int | "auto"`."""
    section: type[BaseModel]
    """The innermost section on the way."""
    field: FieldInfo | None
    """The field that the last key names; None where the section has no such field."""
    annotation: Any
    """What the place holds; None where nothing is known about it."""
    tag: str | None
    """The name that chose the section out of a union, such as that of an attention variant."""
    inside_value: bool
    """Whether the location goes on into the value itself."""

    def expected(self) -> str:
        """What the place accepts, in words."""
        field = self.field
        if field is None or field.annotation is not self.annotation:
            return expected_words(self.annotation)
        words = expected_words(self.annotation, field.metadata)
        if field.discriminator is None:
            return words
        return f"{words} with {field.discriminator}: one of {', '.join(members_by_name(field))}"


def find_place(schema: type[BaseModel], location: Sequence[int | str]) -> Place:
    """Follow a location of pydantic's through a schema."""
    path: list[str] = []
    section: type[BaseModel] = schema
    field: FieldInfo | None = None
    annotation: Any = schema
    tag: str | None = None
    for part in location:
        if is_section(annotation):
            section = annotation
            field = section.model_fields.get(str(part))
            annotation = field.annotation if field is not None else None
            path.append(str(part))
        elif field is not None and field.discriminator is not None:
            tag = str(part)
            annotation = members_by_name(field).get(tag)
        elif get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
            path.append(str(part))
        else:
            return Place(tuple(path), section, field, annotation, tag, inside_value=True)
    return Place(tuple(path), section, field, annotation, tag, inside_value=False)


def all_keys(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted names of all keys, those of every member of a union included."""
    for name, field in schema.model_fields.items():
        key = f"{prefix}{name}"
        yield key
        union = field.discriminator is not None
        members: list[Any] = [*members_by_name(field).values()] if union else [field.annotation]
        for member in members:
            if is_section(member):
                yield from all_keys(member, f"{key}.")


def union_tags(schema: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """The sections whose fields depend on a name in them: dotted key to the key of that name."""
    tags: dict[str, str] = {}
    for name, field in schema.model_fields.items():
        if field.discriminator is not None:
            tags[f"{prefix}{name}"] = str(field.discriminator)
        elif is_section(field.annotation):
            section: Any = field.annotation
            tags |= union_tags(section, f"{prefix}{name}.")
    return tags


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
