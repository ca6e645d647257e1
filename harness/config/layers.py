"""A configuration file and, by `extends:`, those it builds on, as layers for `merge`.

Dotted keys become nested maps, and later layers of configuration go over earlier ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

from harness.config.mistakes import COMMAND_LINE, Mistake, nearest_name
from harness.config.yaml_source import Node, parse_value, quoted, read_yaml, shown_path

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
        inner = nest(child, mistakes, f"{full}.") if child.entries() else child
        for part in reversed(parts):
            inner = Node({part: inner}, child.origin)
        nested = _unite(nested, inner, prefix, mistakes)
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


_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}(?<!\.)")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", flags=re.IGNORECASE)
NAME_WORDS = (
    "letters, digits, _, . and -, no dot at an end, and none of the names that Windows keeps to "
    "itself, such as con"
)


def is_safe_name(name: str) -> bool:
    """Whether a file of the tree or a variant may be called so: one plain path component on every
    system, described by `NAME_WORDS`."""
    return bool(_PLAIN.fullmatch(name)) and not _RESERVED.fullmatch(name)


ABOUT = "about"
EXTENDS = "extends"


def load_layers(
    path: Path, experiments_dir: Path, mistakes: list[Mistake]
) -> tuple[Node, ...] | None:
    """Read a file and all that it extends, weakest first; a file met twice counts once.

    Returns:
        The layers without their `about` and `extends`; None where one could not be read.
    """
    loader = _Loader(experiments_dir.resolve(), mistakes)
    loader.visit(path, ())
    return tuple(loader.layers.values()) if loader.complete else None


def about_line(node: Node, key: str, mistakes: list[Mistake]) -> str:
    """The one line that says what a file is for; empty where there is none."""
    words = node.find((key,))
    if words is None:
        return ""
    if not isinstance(words.value, str):
        mistakes.append(Mistake(words.origin, key, f"got {quoted(words)}", "one line of text"))
        return ""
    return " ".join(words.value.split())


@dataclass
class _Loader:
    root: Path
    mistakes: list[Mistake]
    layers: dict[Path, Node] = field(default_factory=dict)
    complete: bool = True

    def visit(self, path: Path, chain: tuple[Path, ...]) -> None:
        """Put the layers of a file, those below it first."""
        resolved = path.resolve()
        if resolved in self.layers:
            return
        document = read_yaml(path, self.mistakes)
        if document is None:
            self.complete = False
            return
        about_line(document, ABOUT, self.mistakes)
        chain = (*chain, resolved)
        for target in _targets(document):
            below = self._inside(target, path)
            if below is None:
                self.complete = False
            elif below.resolve() in chain:
                loop = (*chain[chain.index(below.resolve()) :], below.resolve())
                names = " -> ".join(shown_path(file) for file in loop)
                self._refuse(target, f"extends itself: {names}")
            else:
                self.visit(below, chain)
        settings = {
            key: node for key, node in document.entries().items() if key not in (ABOUT, EXTENDS)
        }
        self.layers[resolved] = nest(Node(settings, document.origin), self.mistakes)

    def _inside(self, target: Node, path: Path) -> Path | None:
        """The file that one `extends` names; None, and a mistake, where it may not be read."""
        if not isinstance(target.value, str):
            self._refuse(target, f"got {quoted(target)}", "the relative path of a YAML file")
            return None
        parts = target.value.split("/")
        if not all(part in (".", "..") or is_safe_name(part) for part in parts):
            self._refuse(target, f"{quoted(target)} is not a relative path of plain names")
            return None
        below = path.parent / target.value
        if not below.resolve().is_relative_to(self.root):
            self._refuse(target, f"{quoted(target)} lies outside {shown_path(self.root)}")
            return None
        if not below.is_file():
            folder = below.parent
            stems = sorted(file.stem for file in folder.glob("*.yaml")) if folder.is_dir() else []
            nearest = nearest_name(below.stem, stems)
            where = target.value.removesuffix(below.name)
            suggestion = None if nearest is None else f"{where}{nearest}.yaml"
            self._refuse(target, f"there is no file {shown_path(below)}", nearest=suggestion)
            return None
        return below

    def _refuse(
        self, target: Node, problem: str, expected: str | None = None, nearest: str | None = None
    ) -> None:
        self.complete = False
        self.mistakes.append(Mistake(target.origin, EXTENDS, problem, expected, nearest))


def _targets(document: Node) -> tuple[Node, ...]:
    extends = document.find((EXTENDS,))
    if extends is None:
        return ()
    return extends.value if isinstance(extends.value, tuple) else (extends,)
