"""Dotted keys become nested maps, and later layers of configuration go over earlier ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

from harness.config.mistakes import COMMAND_LINE, Mistake
from harness.config.yaml_source import Node, parse_value

_MOST_PARTS = 8
"""Far more than the schema has, and far fewer than would exhaust the stack."""


def nest(section: Node, mistakes: list[Mistake], prefix: str = "") -> Node:
    """Turn dotted keys into nested maps; `a.b: 1` beside `a: {c: 2}` gives both.

    A key that is set in both ways is a mistake: within one layer none is the later one.
    """
    nested = Node({}, section.origin)
    for key, child in section.entries().items():
        full = f"{prefix}{key}"
        parts = key.split(".")
        if not all(parts) or len(parts) > _MOST_PARTS:
            mistakes.append(Mistake(child.origin, full, "is not a key", "names between the dots"))
            continue
        for part in reversed(parts):
            child = Node({part: child}, child.origin)
        nested = _unite(nested, _nest_below(child, parts, mistakes, prefix), prefix, mistakes)
    return nested


def merge(layers: Sequence[Node], tags: Mapping[str, str]) -> Node:
    """Put later layers over earlier ones.

    Maps merge key by key; scalars and lists replace. A map keeps the place where it was first
    written, a value that of the layer it comes from.

    Args:
        layers: weakest first.
        tags: the sections whose fields depend on a name in them, by dotted key, and the key of
            that name. A layer that changes the name replaces such a section as a whole: the fields
            of one attention variant mean nothing to another.
    """
    return reduce(lambda below, above: _overlay(below, above, "", tags), layers)


def overrides_layer(overrides: Sequence[str], mistakes: list[Mistake]) -> Node:
    """The layer that `key=value` words on the command line make."""
    layer = Node({}, COMMAND_LINE)
    for override in overrides:
        key, sign, text = override.partition("=")
        key = key.strip()
        if not sign or not key:
            problem = f"'{override}' is no override"
            mistakes.append(Mistake(COMMAND_LINE, "", problem, "key=value, as in train.steps=200"))
            continue
        value = parse_value(text, COMMAND_LINE, key, mistakes)
        if value is not None:
            one = nest(Node({key: value}, COMMAND_LINE), mistakes)
            layer = _unite(layer, one, "", mistakes)
    return layer


def _nest_below(wrapped: Node, parts: list[str], mistakes: list[Mistake], prefix: str) -> Node:
    """Nest the keys of the value that `parts` were wrapped around."""
    head, *rest = parts
    (child,) = wrapped.entries().values()
    below = f"{prefix}{head}."
    if rest:
        return Node({head: _nest_below(child, rest, mistakes, below)}, wrapped.origin)
    inner = nest(child, mistakes, below) if child.entries() else child
    return Node({head: inner}, wrapped.origin)


def _unite(first: Node, second: Node, prefix: str, mistakes: list[Mistake]) -> Node:
    united = dict(first.entries())
    for key, node in second.entries().items():
        if key not in united:
            united[key] = node
        elif united[key].entries() and node.entries():
            united[key] = _unite(united[key], node, f"{prefix}{key}.", mistakes)
        else:
            problem = f"set twice, first at {united[key].origin}"
            if node.origin == COMMAND_LINE:
                problem = "set twice"
            mistakes.append(Mistake(node.origin, f"{prefix}{key}", problem))
    return Node(united, first.origin)


def _overlay(below: Node, above: Node, key: str, tags: Mapping[str, str]) -> Node:
    if not isinstance(below.value, dict) or not isinstance(above.value, dict):
        return above
    if key in tags and _renamed(below.value.get(tags[key]), above.value.get(tags[key])):
        return above
    merged = dict(below.value)
    for name, node in above.value.items():
        child = f"{key}.{name}" if key else name
        merged[name] = _overlay(merged[name], node, child, tags) if name in merged else node
    return Node(merged, below.origin)


def _renamed(below: Node | None, above: Node | None) -> bool:
    return below is not None and above is not None and below.value != above.value
