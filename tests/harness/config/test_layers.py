from __future__ import annotations

from pathlib import Path

import pytest

from harness.config.layers import load_layers, merge
from harness.config.mistakes import Mistake


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e" / "scale").mkdir(parents=True)
    (tmp_path / "secret.yaml").write_text("a: 1\n")
    return tmp_path / "e"


def _merged(root: Path, name: str) -> object:
    mistakes: list[Mistake] = []
    layers = load_layers(root / name, root, mistakes)
    assert not mistakes
    assert layers is not None
    return merge(layers, {}).plain()


def _mistakes(root: Path, name: str) -> list[str]:
    mistakes: list[Mistake] = []
    assert load_layers(root / name, root, mistakes) is None
    return [str(mistake) for mistake in mistakes]


def test_a_file_goes_over_what_it_extends(root: Path) -> None:
    (root / "base.yaml").write_text("about: base\ns: {a: 1, b: 1, c: 1}\n")
    (root / "scale/mid.yaml").write_text("extends: ../base.yaml\ns.b: 2\ns.c: 2\n")
    (root / "scale/top.yaml").write_text("about: top\nextends: mid.yaml\ns: {c: 3}\n")
    assert _merged(root, "scale/top.yaml") == {"s": {"a": 1, "b": 2, "c": 3}}


def test_of_several_extended_files_the_last_wins(root: Path) -> None:
    (root / "one.yaml").write_text("a: 1\nb: 1\n")
    (root / "two.yaml").write_text("b: 2\nc: 2\n")
    (root / "top.yaml").write_text("extends: [one.yaml, ./two.yaml]\n")
    assert _merged(root, "top.yaml") == {"a": 1, "b": 2, "c": 2}


def test_a_common_base_does_not_undo_what_was_built_on_it(root: Path) -> None:
    (root / "base.yaml").write_text("a: 0\nb: 0\n")
    (root / "one.yaml").write_text("extends: base.yaml\na: 1\n")
    (root / "two.yaml").write_text("extends: base.yaml\nb: 2\n")
    (root / "top.yaml").write_text("extends: [one.yaml, two.yaml]\n")
    assert _merged(root, "top.yaml") == {"a": 1, "b": 2}


def test_a_cycle_is_a_mistake(root: Path) -> None:
    (root / "scale/a.yaml").write_text("extends: b.yaml\n")
    (root / "scale/b.yaml").write_text("about: b\nextends: a.yaml\n")
    assert _mistakes(root, "scale/a.yaml") == [
        "e/scale/b.yaml:2: extends: extends itself: "
        "e/scale/a.yaml -> e/scale/b.yaml -> e/scale/a.yaml"
    ]
    (root / "c.yaml").write_text("extends: c.yaml\n")
    assert _mistakes(root, "c.yaml") == [
        "e/c.yaml:1: extends: extends itself: e/c.yaml -> e/c.yaml"
    ]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("../bse.yaml", "there is no file e/bse.yaml (did you mean ../base.yaml?)"),
        ("no/where.yaml", "there is no file e/scale/no/where.yaml"),
        ("..", "there is no file e"),
        ("../../secret.yaml", "'../../secret.yaml' lies outside e"),
        ("/etc/passwd", "'/etc/passwd' is not a relative path of plain names"),
        ("'a b.yaml'", "'a b.yaml' is not a relative path of plain names"),
        ('"a\\0.yaml"', r"'a\x00.yaml' is not a relative path of plain names"),
        ("''", "'' is not a relative path of plain names"),
        ("3", "got 3; expected the relative path of a YAML file"),
        ("{a: 1}", "got a map; expected the relative path of a YAML file"),
        ("link.yaml", "'link.yaml' lies outside e"),
    ],
)
def test_only_files_inside_the_folder_can_be_extended(root: Path, value: str, problem: str) -> None:
    (root / "base.yaml").write_text("a: 1\n")
    (root / "scale/link.yaml").symlink_to(root.parent / "secret.yaml")
    (root / "scale/top.yaml").write_text(f"about: top\nextends: {value}\n")
    assert _mistakes(root, "scale/top.yaml") == [f"e/scale/top.yaml:2: extends: {problem}"]


def test_mistakes_of_all_files_are_told_at_once(root: Path) -> None:
    (root / "one.yaml").write_text("a: [\n")
    (root / "two.yaml").write_text("b: 1\nb: 2\n")
    (root / "top.yaml").write_text("about: [x]\nextends:\n  - one.yaml\n  - two.yaml\n  - x.yaml\n")
    assert _mistakes(root, "top.yaml") == [
        "e/top.yaml:1: about: got ['x']; expected one line of text",
        "e/one.yaml:2: not valid YAML: while parsing a flow node, expected the node content, "
        "but found '<stream end>'",
        "e/two.yaml:2: b: duplicate key, first on line 1",
        "e/top.yaml:5: extends: there is no file e/x.yaml",
    ]
