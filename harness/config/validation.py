"""A merged configuration against a pydantic schema, each error of which becomes a mistake with the
place that the user wrote the value at and the valid name nearest to it.

Pydantic locates an error by the keys that lead to it, with the names of union members and the
indices of lists in between; only the keys are names that stand in the user's files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from harness.config.layers import merge
from harness.config.mistakes import Mistake, Origin, nearest_name
from harness.config.yaml_source import Node, quoted

Schema = TypeVar("Schema", bound=BaseModel)
Path = tuple[str, ...]

_DOTTED = re.compile(r"[a-z_]+(?:\.[a-z_]+)+")
_QUOTED = re.compile(r"'([^']*)'")
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_SECTION = "a section of keys"
_EXPECTED = {
    "model_attributes_type": _SECTION,
    "model_type": _SECTION,
    "dict_type": _SECTION,
    "bool_type": "true or false",
    "int_type": "a whole number",
    "missing": "a longer list",
    "string_type": "text",
    "tuple_type": "a list",
}
"""Pydantic's types of errors that are clearer in the words of YAML."""


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
        mistakes += translator.mistakes_of(error.errors(include_url=False))
        return None


def check_keys(schema: type[BaseModel], layer: Node, mistakes: list[Mistake]) -> None:
    """Check the keys of a single layer, for when there is nothing to merge it with."""
    valid = list(all_fields(schema))
    for key, node in _leaves(layer):
        if key not in valid:
            nearest = nearest_name(key, valid)
            mistakes.append(Mistake(node.origin, key, "unknown key", nearest=nearest))


def all_fields(schema: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """All fields by their dotted key, those of every member of a union included."""
    fields: dict[str, FieldInfo] = {}
    for name, field in schema.model_fields.items():
        fields[f"{prefix}{name}"] = field
        for member in _sections(field):
            fields |= all_fields(member, f"{prefix}{name}.")
    return fields


def union_tags(schema: type[BaseModel]) -> dict[str, str]:
    """The sections whose fields depend on a name in them: dotted key to the key of that name."""
    fields = all_fields(schema).items()
    return {key: str(field.discriminator) for key, field in fields if field.discriminator}


def takes_whole_numbers(field: FieldInfo) -> bool:
    """Whether a field's numbers are whole ones."""
    kinds = (field.annotation, *get_args(field.annotation))
    return int in kinds and float not in kinds


def _leaves(node: Node, prefix: str = "") -> Iterator[tuple[str, Node]]:
    """The values of a section by their dotted key, in the order of the file."""
    for key, child in node.entries().items():
        if child.entries():
            yield from _leaves(child, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", child


def _sections(field: FieldInfo) -> list[type[BaseModel]]:
    """The models among the types of a field; none for a plain value."""
    parts = get_args(field.annotation) or (field.annotation,)
    return [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]


def _members(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """The models that a union chooses from by a name in them, by that name."""
    tag = str(field.discriminator)
    return {
        str(get_args(model.model_fields[tag].annotation)[0]): model for model in _sections(field)
    }


class _Translator:
    """Turns the errors that pydantic found in one merged configuration into mistakes."""

    def __init__(self, schema: type[BaseModel], layers: Sequence[Node], tree: Node) -> None:
        self.schema = schema
        self.layers = layers
        self.tree = tree
        self.fields = all_fields(schema)

    def mistakes_of(self, errors: Sequence[Mapping[str, Any]]) -> list[Mistake]:
        """A mistake for each line of each error; the branches of `int | "auto"` are one."""
        found: list[Mistake] = []
        values: dict[Path, list[Mapping[str, Any]]] = {}
        for details in errors:
            path = self._path(details["loc"])
            match details["type"]:
                case "extra_forbidden":
                    found.append(self._unknown_key(path))
                case "missing" if self.tree.find(path) is None:
                    found.append(self._mistake(path, "missing key"))
                case "value_error":
                    lines = str(details["ctx"]["error"]).splitlines()
                    found += [self._does_not_fit(path, line) for line in lines]
                case "union_tag_not_found":
                    field = self.fields[".".join(path)]
                    expected = f"one of {', '.join(_members(field))}"
                    tag = (*path, str(field.discriminator))
                    found.append(self._mistake(tag, "missing key", expected))
                case "union_tag_invalid":
                    tag = (*path, str(self.fields[".".join(path)].discriminator))
                    found.append(self._wrong_value(tag, [details]))
                case _:
                    values.setdefault(path, []).append(details)
        return found + [self._wrong_value(path, details) for path, details in values.items()]

    def _path(self, location: Sequence[int | str]) -> Path:
        """The keys in an error's location."""
        path: Path = ()
        parts = iter(location)
        for part in parts:
            node = self.tree.find(path)
            if node is None or not isinstance(node.value, Mapping) or isinstance(part, int):
                break
            path = (*path, part)
            field = self.fields.get(".".join(path))
            if field is not None and field.discriminator:
                next(parts, None)
        return path

    def _unknown_key(self, path: Path) -> Mistake:
        above, name = path[:-1], path[-1]
        section, of_member = self.schema, ""
        if above:
            field = self.fields[".".join(above)]
            section = _sections(field)[0]
            if field.discriminator:
                tag = self.tree.find((*above, str(field.discriminator)))
                member = "" if tag is None else str(tag.value)
                section, of_member = _members(field)[member], f" for {member}"
        siblings = list(section.model_fields)
        suggestion = None
        # Otherwise the key is right, but belongs to another member of the union.
        if ".".join(path) not in self.fields:
            nearest = nearest_name(name, siblings)
            if nearest is not None:
                suggestion = ".".join([*above, nearest])
            else:
                suggestion = _elsewhere(name, list(self.fields), ".".join(above))
        expected = None if suggestion else f"one of {', '.join(siblings)}"
        return self._mistake(path, f"unknown key{of_member}", expected, suggestion)

    def _wrong_value(self, path: Path, errors: Sequence[Mapping[str, Any]]) -> Mistake:
        """A value that none of a field's types takes."""
        node = self.tree.find(path)
        problem = "wrong value" if node is None else f"got {quoted(node)}"
        expected = " or ".join(dict.fromkeys(map(_expected, errors)))
        nearest = None
        if node is not None and isinstance(node.value, str):
            nearest = nearest_name(node.value, [name for error in errors for name in _names(error)])
        return self._mistake(path, problem, expected, nearest)

    def _does_not_fit(self, path: Path, problem: str) -> Mistake:
        """Keys that contradict each other: the one set last is the one to look at."""
        named = [tuple(key.split(".")) for key in _DOTTED.findall(problem)]
        path = max(filter(self.tree.find, named), key=self._layer_of, default=path)
        return self._mistake(path, problem)

    def _layer_of(self, path: Path) -> int:
        setting = [index for index, layer in enumerate(self.layers) if layer.find(path)]
        return max(setting, default=-1)

    def _mistake(
        self, path: Path, problem: str, expected: str | None = None, nearest: str | None = None
    ) -> Mistake:
        return Mistake(self._origin(path), ".".join(path), problem, expected, nearest)

    def _origin(self, path: Path) -> Origin:
        """The place that a key was set at; for one that was not, the place of its section."""
        node = self.tree.find(path)
        return node.origin if node is not None else self._origin(path[:-1])


def _expected(error: Mapping[str, Any]) -> str:
    """What pydantic says that a value should be."""
    if error["type"] in _EXPECTED:
        return _EXPECTED[error["type"]]
    for name, sign in _BOUNDS.items():
        if name in error.get("ctx", {}):
            return f"a number {sign} {error['ctx'][name]}"
    names = _names(error)
    if names:
        return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    text = str(error["msg"]).removeprefix("Input should be ")
    return text[:1].lower() + text[1:]


def _names(error: Mapping[str, Any]) -> list[str]:
    """The valid names that pydantic lists in an error."""
    context = error.get("ctx", {})
    return _QUOTED.findall(context.get("expected_tags", context.get("expected", "")))


def _elsewhere(name: str, keys: Sequence[str], section: str) -> str | None:
    """The keys of other sections whose own name is nearest."""
    by_name: dict[str, list[str]] = {}
    for key in keys:
        above, _, own = key.rpartition(".")
        if not section or above != section:
            by_name.setdefault(own, []).append(key)
    nearest = nearest_name(name, list(by_name))
    return None if nearest is None else " or ".join(by_name[nearest])
