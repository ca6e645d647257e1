"""From a pydantic error's location to the key that the user wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness.config.expectation import expected_words, is_section, members_by_name


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
