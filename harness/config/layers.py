"""What the experiments folder holds, as layers of configuration: a file and, by `extends:`, those
it builds on. Dotted keys become nested maps, and later layers go over earlier ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Literal

from harness.config.mistakes import COMMAND_LINE, ConfigError, Mistake, Origin, nearest_name
from harness.config.yaml_source import Node, parse_value, quoted, read_yaml, shown_path

_MOST_PARTS = 8
"""Far more than the schema has, and far fewer than would exhaust the stack."""


def nest(section: Node, mistakes: list[Mistake], prefix: str = "") -> Node:
    """Turn dotted keys into nested maps; `a.b: 1` beside `a: {c: 2}` gives both.

    A key that is set in both ways is a mistake: within one layer none is the later one.
    """
    return _nested(section.entries().items(), section.origin, mistakes, prefix)


def _nested(
    entries: Iterable[tuple[str, Node]], origin: Origin, mistakes: list[Mistake], prefix: str = ""
) -> Node:
    nested = Node({}, origin)
    for key, child in entries:
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
    entries = []
    for override in overrides:
        key, sign, text = override.partition("=")
        key = key.strip()
        if not sign or not key:
            problem = f"'{override}' is no override"
            mistakes.append(Mistake(COMMAND_LINE, "", problem, "key=value, as in train.steps=200"))
        elif (value := parse_value(text, COMMAND_LINE, key, mistakes)) is not None:
            entries.append((key, value))
    return _nested(entries, COMMAND_LINE, mistakes)


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
    if key in tags:
        old, new = below.find((tags[key],)), above.find((tags[key],))
        if old is not None and new is not None and old.value != new.value:
            return above
    merged = dict(below.value)
    for name, node in above.value.items():
        child = f"{key}.{name}" if key else name
        merged[name] = _overlay(merged[name], node, child, tags) if name in merged else node
    return Node(merged, below.origin)


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


SUFFIX = ".yaml"

Kind = Literal["ablation", "search", "scale", "cluster"]
"""What the experiments folder offers; also the name of the folder that holds the files."""


def files(kind: Kind, experiments_dir: Path) -> list[Path]:
    """All files of one kind, sorted by path."""
    return sorted(path for path in (experiments_dir / kind).glob(f"*{SUFFIX}") if path.is_file())


def names(kind: Kind, experiments_dir: Path) -> tuple[str, ...]:
    """The names that the command line accepts, sorted."""
    found = (path.name.removesuffix(SUFFIX) for path in files(kind, experiments_dir))
    return tuple(name for name in found if is_safe_name(name))


def find_file(kind: Kind, name: str, experiments_dir: Path, mistakes: list[Mistake]) -> Path | None:
    """The file behind a name. A name is looked up in the listing and never becomes a path, so none
    leads out of the folder."""
    valid = names(kind, experiments_dir)
    if name in valid:
        return experiments_dir / kind / f"{name}{SUFFIX}"
    expected = f"one of {', '.join(valid)}" if valid else None
    where = "" if valid else f": {shown_path(experiments_dir / kind)} holds no {SUFFIX} file"
    problem = f"unknown {kind} '{name}'{where}"
    mistakes.append(Mistake(COMMAND_LINE, kind, problem, expected, nearest_name(name, valid)))
    return None


ABOUT = "about"
EXTENDS = "extends"


def about_line(node: Node, key: str, mistakes: list[Mistake]) -> str:
    """The one line that says what a file is for; empty where there is none."""
    words = node.find((key,))
    if words is None:
        return ""
    if not isinstance(words.value, str):
        mistakes.append(Mistake(words.origin, key, f"got {quoted(words)}", "one line of text"))
        return ""
    return " ".join(words.value.split())


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


def load_named_layers(
    kind: Kind, name: str, experiments_dir: Path, mistakes: list[Mistake]
) -> tuple[Node, ...] | None:
    """The layers of a file by its name; None, and the mistakes, where it cannot be read."""
    path = find_file(kind, name, experiments_dir, mistakes)
    return None if path is None else load_layers(path, experiments_dir, mistakes)


@dataclass
class _Loader:
    root: Path
    mistakes: list[Mistake]
    layers: dict[Path, Node] = field(default_factory=dict)
    complete: bool = True

    def visit(self, path: Path, chain: tuple[Path, ...]) -> None:
        """Put the layers of a file, those below it first; `chain` are the files that led to it."""
        resolved = path.resolve()
        if resolved in self.layers:
            return
        document = read_yaml(path, self.mistakes)
        if document is None:
            self.complete = False
            return
        about_line(document, ABOUT, self.mistakes)
        chain = (*chain, resolved)
        settings = dict(document.entries())
        settings.pop(ABOUT, None)
        extends = settings.pop(EXTENDS, Node((), document.origin))
        for target in extends.value if isinstance(extends.value, tuple) else (extends,):
            try:
                below = self._inside(target, path)
                if below.resolve() in chain:
                    loop = (*chain[chain.index(below.resolve()) :], below.resolve())
                    raise _wrong(target, f"extends itself: {' -> '.join(map(shown_path, loop))}")
                self.visit(below, chain)
            except ConfigError as error:
                self.complete = False
                self.mistakes += error.mistakes
        self.layers[resolved] = nest(Node(settings, document.origin), self.mistakes)

    def _inside(self, target: Node, path: Path) -> Path:
        """The file that one `extends` names, as long as it may be read."""
        name = target.value
        if not isinstance(name, str):
            raise _wrong(target, f"got {quoted(target)}", "the relative path of a YAML file")
        if not all(part in (".", "..") or is_safe_name(part) for part in name.split("/")):
            raise _wrong(target, f"{quoted(target)} is not a relative path of plain names")
        below = path.parent / name
        if not below.resolve().is_relative_to(self.root):
            raise _wrong(target, f"{quoted(target)} lies outside {shown_path(self.root)}")
        if below.is_file():
            return below
        stems = sorted(file.stem for file in below.parent.glob("*.yaml"))
        nearest = nearest_name(below.stem, stems)
        suggestion = None if nearest is None else f"{name.removesuffix(below.name)}{nearest}.yaml"
        raise _wrong(target, f"there is no file {shown_path(below)}", nearest=suggestion)


def _wrong(
    target: Node, problem: str, expected: str | None = None, nearest: str | None = None
) -> ConfigError:
    return ConfigError([Mistake(target.origin, EXTENDS, problem, expected, nearest)])
