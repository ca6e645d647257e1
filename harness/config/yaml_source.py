"""Strict YAML 1.2 whose every value knows the file and line it was written on.

Plain scalars are read by the core schema (YAML 1.2.2, section 10.3.2), in which `1e-4` is a number
and `no`, `off` and `on` are text; PyYAML, which parses the files, follows YAML 1.1 there. Refused,
each as a mistake: duplicate keys (PyYAML lets the last one win), tags, merge keys `<<`, keys that
are not plain words, aliases that contain themselves, integers that other programs cannot hold.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.config.mistakes import Mistake, Origin
from models.errors import first_line

Scalar = str | int | float | bool | None

_PLAIN: tuple[tuple[str, Callable[[str], Scalar]], ...] = (
    ("|~|null|Null|NULL", lambda _: None),
    ("true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    ("[-+]?[0-9]+", int),
    ("0o[0-7]+", lambda text: int(text, 8)),
    ("0x[0-9a-fA-F]+", lambda text: int(text, 16)),
    (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", float),
    (r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", lambda text: float(text.replace(".", ""))),
)
"""What texts each kind of value has, and how they are read; any other text is text."""


def read_plain_scalar(text: str) -> Scalar:
    """The value of an unquoted scalar.

    Raises:
        ValueError: an integer of more digits than Python converts (4300).
    """
    return next((read(text) for kind, read in _PLAIN if re.fullmatch(kind, text)), text)


LARGEST_INTEGER = 2**53
"""Above it, MLflow's float64 metrics and JSON of other programs no longer hold every integer."""

# Far more than the schema has, and far fewer than would exhaust memory or the stack.
_MOST_NODES = 10_000
_MOST_LEVELS = 20


@dataclass(frozen=True)
class Node:
    """A value and where it was written; the place of a map's entry is that of its key."""

    value: Scalar | tuple[Node, ...] | Mapping[str, Node]
    origin: Origin

    def entries(self) -> Mapping[str, Node]:
        """The entries of a map; none where the value is no map."""
        return self.value if isinstance(self.value, Mapping) else {}

    def find(self, path: Sequence[str]) -> Node | None:
        """The node that a path of keys leads to."""
        node: Node | None = self
        for key in path:
            node = node.entries().get(key) if node is not None else None
        return node

    def plain(self) -> Any:
        """The value without its origins, in dictionaries and lists."""
        if isinstance(self.value, Mapping):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, tuple):
            return [node.plain() for node in self.value]
        return self.value


def read_yaml(path: Path, mistakes: list[Mistake]) -> Node | None:
    """Read a file that holds one map.

    Returns:
        The map, an empty one for an empty file; None, and a mistake, where the file cannot be
        read as YAML at all. Duplicate keys and the like are mistakes too, but leave a map.
    """
    origin = Origin(shown_path(path), 1)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problem = "is not UTF-8 text"
        if isinstance(error, OSError):
            problem = f"cannot be read: {error.strerror or error}"
        mistakes.append(Mistake(Origin(origin.source), "", problem))
        return None
    node = parse_value(text, origin, "", mistakes)
    if node is None or isinstance(node.value, Mapping):
        return node
    if node.value is None:
        return Node({}, origin)
    mistakes.append(Mistake(origin, "", f"is {quoted(node)}", "a map of keys to values"))
    return None


def shown_path(path: Path) -> str:
    """A path as messages show it: relative to the current folder where it lies inside."""
    plain, here = Path(os.path.normpath(path.absolute())), Path.cwd()
    return plain.relative_to(here).as_posix() if plain.is_relative_to(here) else str(plain)


def quoted(node: Node) -> str:
    """A value as messages show it, not too long."""
    if isinstance(node.value, Mapping):
        return "a map" if node.value else "an empty map"
    if isinstance(node.value, tuple):
        return _shortened(f"[{', '.join(map(quoted, node.value))}]")
    if isinstance(node.value, str):
        return f"'{_shortened(node.value)}'"
    return _shortened(json.dumps(node.value))


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse_value(text: str, origin: Origin, key: str, mistakes: list[Mistake]) -> Node | None:
    """Read a value, by the same rules in a file and outside of one: a scalar, or a list or map in
    brackets; or the whole text of a file.

    Lines are those of the text where `origin` has one. `key` is what mistakes name.
    """
    reader = _Reader(origin, mistakes)
    try:
        tags = [token for token in yaml.scan(text) if isinstance(token, yaml.TagToken)]
        document = yaml.compose(text, Loader=yaml.SafeLoader)
        problem = "YAML tags such as !!str are not allowed"
        mistakes += [Mistake(reader.place(tag.start_mark), key, problem) for tag in tags]
        return Node(None, origin) if document is None else reader.read(document, key)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = origin if mark is None else reader.place(mark)
        words = ", ".join(part for part in (error.context, error.problem) if part)
        mistakes.append(Mistake(place, key, f"not valid YAML: {words}"))
    except yaml.YAMLError as error:
        mistakes.append(Mistake(origin, key, f"not valid YAML: {first_line(error)}"))
    except (RecursionError, _TooLargeError):
        mistakes.append(Mistake(origin, key, "nested too deeply or too large"))
    return None


class _TooLargeError(Exception):
    """A few lines of aliases can stand for billions of values."""


@dataclass
class _Reader:
    """Turns one composed document into nodes."""

    origin: Origin
    mistakes: list[Mistake]
    open_nodes: set[int] = field(default_factory=set)
    count: int = 0

    def place(self, mark: yaml.Mark) -> Origin:
        """A place in the file; outside files there are no lines."""
        line = None if self.origin.line is None else mark.line + 1
        return Origin(self.origin.source, line)

    def read(self, node: yaml.Node, path: str, place: Origin | None = None) -> Node:
        """Convert a node; `place` is that of its key where it has one."""
        place = place or self.place(node.start_mark)
        self.count += 1
        if self.count > _MOST_NODES or len(self.open_nodes) > _MOST_LEVELS:
            raise _TooLargeError
        if isinstance(node, yaml.ScalarNode):
            return Node(self._scalar(node, path, place), place)
        if id(node) in self.open_nodes:
            self._refuse(place, path, "an alias must not contain itself")
            return Node(None, place)
        self.open_nodes.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            result = Node(tuple(self.read(item, path) for item in node.value), place)
        else:
            result = Node(dict(self._entries(node, path)), place)
        self.open_nodes.discard(id(node))
        return result

    def _refuse(self, place: Origin, key: str, problem: str, expected: str | None = None) -> None:
        self.mistakes.append(Mistake(place, key, problem, expected))

    def _scalar(self, node: yaml.ScalarNode, path: str, place: Origin) -> Scalar:
        if node.style is not None:
            return str(node.value)
        try:
            value = read_plain_scalar(node.value)
        except ValueError:  # more digits than Python converts
            value = LARGEST_INTEGER + 1
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            problem = f"{_shortened(node.value)} is too large a number"
            expected = f"a whole number of at most {LARGEST_INTEGER} (2^53)"
            self._refuse(place, path, problem, expected)
        return value

    def _entries(self, node: yaml.Node, path: str) -> Iterator[tuple[str, Node]]:
        seen: dict[str, Origin] = {}
        for key_node, value_node in node.value:
            place = self.place(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(place, path, "a key must be a word")
                continue
            # The text of a key is the key: `off` and `3` are names like any other.
            name = str(key_node.value)
            key = f"{path}.{name}" if path else name
            if name == "<<" and key_node.style is None:
                self._refuse(place, key, "merge keys are not allowed", "`extends:` or an alias")
            elif name in seen:
                line = seen[name].line
                where = "" if line is None else f", first on line {line}"
                self._refuse(place, key, f"duplicate key{where}")
            else:
                seen[name] = place
                yield name, self.read(value_node, key, place)
