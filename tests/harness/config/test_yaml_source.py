from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from harness.config.mistakes import COMMAND_LINE, Mistake
from harness.config.yaml_source import Node, parse_value, read_yaml


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "a.yaml"


def _read(file: Path, text: str | bytes) -> tuple[Node | None, list[str]]:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    mistakes: list[Mistake] = []
    node = read_yaml(file, mistakes)
    return node, [str(mistake) for mistake in mistakes]


def _random_value(random_: random.Random, depth: int) -> Any:
    kind = random_.randrange(7 if depth else 5)
    if kind == 5:
        return [_random_value(random_, depth - 1) for _ in range(random_.randrange(4))]
    if kind == 6:
        return _random_map(random_, depth - 1)
    odd_texts = [
        "1e-4",
        "off",
        "null",
        "a: b",
        "# c",
        "",
        " x ",
        "é\n",
        "~",
        "0x1f",
        "!t",
        "&a",
        "*a",
    ]
    return [
        None,
        random_.random() < 0.5,
        random_.randrange(-(10**9), 10**9),
        random_.gauss(0, 1) * 10 ** random_.randrange(-12, 12),
        random_.choice(odd_texts),
    ][kind]


def _random_map(random_: random.Random, depth: int) -> dict[str, Any]:
    return {f"k{index}": _random_value(random_, depth) for index in range(random_.randrange(1, 5))}


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_read_as_the_json_module_reads_it(
    file: Path, seed: int, indent: int | None
) -> None:
    value = _random_map(random.Random(seed), depth=4)
    node, mistakes = _read(file, json.dumps(value, indent=indent))
    assert not mistakes
    assert node is not None
    assert json.dumps(node.plain()) == json.dumps(value)


def test_every_value_knows_the_line_of_its_key(file: Path) -> None:
    node, mistakes = _read(file, "# c\na:\n\n  b: 1\n  c:\n    [2,\n     3]\nd: |\n  text\ne:\n")
    assert not mistakes
    assert node is not None
    lines = {key: node.find(key.split(".")) for key in ("a", "a.b", "a.c", "d", "e")}
    assert {key: found.origin.line for key, found in lines.items() if found} == {
        "a": 2,
        "a.b": 4,
        "a.c": 5,
        "d": 8,
        "e": 10,
    }
    items = node.find(("a", "c"))
    assert items is not None
    assert isinstance(items.value, tuple)
    assert [str(item.origin) for item in items.value] == ["a.yaml:6", "a.yaml:7"]


def test_quoted_text_stays_text_and_plain_off_is_no_boolean(file: Path) -> None:
    node, mistakes = _read(file, "a: '1'\nb: \"true\"\nc: off\noff: no\n3: x\nd: 1e-4\n")
    assert not mistakes
    assert node is not None
    assert node.plain() == {"a": "1", "b": "true", "c": "off", "off": "no", "3": "x", "d": 1e-4}


def test_aliases_stand_for_what_they_name(file: Path) -> None:
    node, mistakes = _read(file, "a: &x {b: 1}\nc: *x\n")
    assert not mistakes
    assert node is not None
    assert node.plain() == {"a": {"b": 1}, "c": {"b": 1}}


def test_an_empty_file_is_an_empty_map_and_a_byte_order_mark_is_no_key(file: Path) -> None:
    for text in ("", "# only a comment\n", "null\n"):
        node, mistakes = _read(file, text)
        assert node is not None
        assert node.plain() == {}
        assert not mistakes
    node, mistakes = _read(file, "a: 1\n".encode("utf-8-sig"))
    assert node is not None
    assert node.plain() == {"a": 1}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a: 1\nb: 2\na: 3\n", ["a.yaml:3: a: duplicate key, first on line 1"]),
        (
            "s:\n  a: 1\n  a: 2\n  a: 3\nt: {b: 1, 'b': 2}\n",
            [
                "a.yaml:3: s.a: duplicate key, first on line 2",
                "a.yaml:4: s.a: duplicate key, first on line 2",
                "a.yaml:5: t.b: duplicate key, first on line 5",
            ],
        ),
        ("l:\n - {a: 1,\n    a: 2}\n", ["a.yaml:3: l.a: duplicate key, first on line 2"]),
        ("a: !!str 1\n", ["a.yaml:1: YAML tags such as !!str are not allowed"]),
        (
            "a: !!python/object/apply:os.system [ls]\nb: !x 1\n",
            [
                "a.yaml:1: YAML tags such as !!str are not allowed",
                "a.yaml:2: YAML tags such as !!str are not allowed",
            ],
        ),
        (
            "a: &x {b: 1}\nc:\n  <<: *x\n",
            ["a.yaml:3: c.<<: merge keys are not allowed; expected `extends:` or an alias"],
        ),
        ("a: 1\n? [b]\n: 2\n", ["a.yaml:2: a key must be a word"]),
        ("a: &x [*x]\n", ["a.yaml:1: a: an alias must not contain itself"]),
        (
            f"a: {'9' * 5000}\n",
            [
                f"a.yaml:1: a: {'9' * 57}... is too large a number; "
                "expected a whole number of at most 9007199254740992 (2^53)"
            ],
        ),
    ],
)
def test_what_yaml_allows_and_we_do_not_is_a_mistake_each(
    file: Path, text: str, lines: list[str]
) -> None:
    assert _read(file, text)[1] == lines


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "a: 1\nb: [1, 2\nc: 3\n",
            "a.yaml:3: not valid YAML: while parsing a flow sequence, expected ',' or ']', "
            "but got ':'",
        ),
        (
            "a: 1\n\tb: 2\n",
            "a.yaml:2: not valid YAML: while scanning for the next token, "
            "found character '\\t' that cannot start any token",
        ),
        ("a: b: c\n", "a.yaml:1: not valid YAML: mapping values are not allowed here"),
        (
            "a: 1\n---\nb: 2\n",
            "a.yaml:2: not valid YAML: expected a single document in the stream, "
            "but found another document",
        ),
        (
            "a: *x\n",
            "a.yaml:1: not valid YAML: found undefined alias 'x'",
        ),
        ("- 1\n- 2\n", "a.yaml:1: is [1, 2]; expected a map of keys to values"),
        ("words\n", "a.yaml:1: is 'words'; expected a map of keys to values"),
        (b"a: \xff\n", "a.yaml: is not UTF-8 text"),
        ("a: \x07\n", "a.yaml:1: not valid YAML: unacceptable character #x0007"),
        (f"a: {'[' * 40}{']' * 40}", "a.yaml:1: nested too deeply or too large"),
        ("[" * 1000, "a.yaml:1: nested too deeply or too large"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
                for old, new in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            "a.yaml:1: nested too deeply or too large",
        ),
    ],
)
def test_a_file_that_is_no_map_is_one_mistake(file: Path, text: str | bytes, line: str) -> None:
    node, mistakes = _read(file, text)
    assert node is None
    assert len(mistakes) == 1
    assert mistakes[0].startswith(line)


def test_a_file_that_cannot_be_opened_is_a_mistake(file: Path) -> None:
    mistakes: list[Mistake] = []
    assert read_yaml(file, mistakes) is None
    file.mkdir()
    assert read_yaml(file, mistakes) is None
    assert [str(mistake) for mistake in mistakes] == [
        "a.yaml: cannot be read: No such file or directory",
        "a.yaml: cannot be read: Is a directory",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("200", 200),
        ("1e-4", 1e-4),
        ("off", "off"),
        ("no", "no"),
        ("true", True),
        ("null", None),
        ("", None),
        ("'200'", "200"),
        ("[0.9, 1e-3]", [0.9, 1e-3]),
        ("{name: sana, eps: 1e-8}", {"name": "sana", "eps": 1e-8}),
        ("/a path/with=sign", "/a path/with=sign"),
    ],
)
def test_a_value_outside_a_file_is_read_by_the_same_rules(text: str, value: object) -> None:
    mistakes: list[Mistake] = []
    node = parse_value(text, COMMAND_LINE, "a.b", mistakes)
    assert not mistakes
    assert node is not None
    assert node.plain() == value
    assert node.origin == COMMAND_LINE


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[1", "command line: a.b: not valid YAML: while parsing a flow sequence, expected"),
        ("{c: 1, c: 2}", "command line: a.b.c: duplicate key"),
        ("!!str 3", "command line: a.b: YAML tags such as !!str are not allowed"),
        ("\x00", "command line: a.b: not valid YAML: unacceptable character #x0000"),
    ],
)
def test_a_bad_value_outside_a_file_names_its_key(text: str, line: str) -> None:
    mistakes: list[Mistake] = []
    parse_value(text, COMMAND_LINE, "a.b", mistakes)
    assert len(mistakes) == 1
    assert str(mistakes[0]).startswith(line)
