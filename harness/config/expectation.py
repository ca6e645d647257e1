"""What a field of the schema accepts, in words: the second half of every message about it."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

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
