"""A configuration file and, by `extends:`, those it builds on, as layers for `merge`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from harness.config.merge import nest
from harness.config.mistakes import Mistake, nearest_name
from harness.config.yaml_source import Node, quoted, read_yaml, shown_path

SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""What a file of the tree or a variant may be called: always one plain path component."""

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
        if not all(part in (".", "..") or SAFE_NAME.fullmatch(part) for part in parts):
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
