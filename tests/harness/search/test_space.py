from __future__ import annotations

import pytest

from harness.config.mistakes import Mistake, Origin
from harness.config.yaml_source import Node
from harness.search.space import Choice, Dimension, FloatRange, IntRange, parse_dimension

ORIGIN = Origin("x.yaml", 7)


def parse(text: object) -> tuple[Dimension | None, list[str]]:
    mistakes: list[Mistake] = []
    found = parse_dimension(Node(text, ORIGIN), "train.steps", mistakes)  # type: ignore[arg-type]
    return found, [str(mistake) for mistake in mistakes]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("uniform(0, 1)", FloatRange(0.0, 1.0, log=False)),
        ("uniform(-2.5, 1e1)", FloatRange(-2.5, 10.0, log=False)),
        ("loguniform(1e-3, 1e-1)", FloatRange(0.001, 0.1, log=True)),
        (" loguniform ( 1e-3 , .1 ) ", FloatRange(0.001, 0.1, log=True)),
        ("int(1, 9)", IntRange(1, 9, 1, log=False)),
        ("int(1, 9, 2)", IntRange(1, 9, 2, log=False)),
        ("int(-4, 0x10, 4)", IntRange(-4, 16, 4, log=False)),
        ("logint(1, 1024)", IntRange(1, 1024, 1, log=True)),
        ("choice(dynamic, off)", Choice(("dynamic", "off"))),
        ("choice(true, no, null, 1e-3, 2)", Choice((True, "no", None, 0.001, 2))),
        ("choice('a, b', \"true\")", Choice(("a, b", "true"))),
        ("choice(1, true)", Choice((1, True))),
        ("choice(open('x'), 1+1)", Choice(("open('x')", "1+1"))),
    ],
)
def test_every_form_is_read_as_written(text: str, expected: Dimension) -> None:
    found, mistakes = parse(text)
    assert mistakes == []
    assert found == expected
    assert repr(found) == repr(expected)  # 1 == True, so equality alone is not enough


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (0.5, "got 0.5, which says nothing to search over; expected one of uniform(low, high)"),
        ("0.5", "says nothing to search over"),
        ("loguniform 1, 2", "says nothing to search over"),
        ("lognuiform(1, 2)", "unknown form 'lognuiform'"),
        ("lognuiform(1, 2)", "(did you mean loguniform?)"),
        ("uniform(1)", "has 1 values instead of 2; expected uniform(low, high)"),
        ("uniform(1, 2, 3)", "has 3 values instead of 2"),
        ("int(1, 2, 1, 1)", "has 4 values instead of 2 or 3"),
        ("uniform(low, 2)", "the bounds must be finite numbers"),
        ("uniform(true, 2)", "the bounds must be finite numbers"),
        ("uniform(.nan, 2)", "the bounds must be finite numbers"),
        ("uniform(0, .inf)", "the bounds must be finite numbers"),
        ("uniform(2, 1)", "the range is empty; expected low < high"),
        ("uniform(1, 1)", "the range is empty"),
        ("loguniform(0, 1)", "expected low > 0"),
        ("logint(0, 8)", "expected low >= 1"),
        ("int(1.5, 3)", "the bounds must be whole numbers"),
        ("int(1, 9, 0)", "the step is 0; expected a step >= 1"),
        ("int(1, 10, 2)", "expected such as int(1, 9, 2)"),
        ("choice(3)", "at least two values"),
        ("choice(a, b, a)", "a value is listed twice"),
        ("choice(1, 1.0)", "a value is listed twice"),
        ("choice([1, 2], 3)", "[1, 2] is not a single value"),
        ("choice(1, .inf)", "values must be finite"),
        ("choice(a, 'b)", "not valid YAML"),
    ],
)
def test_a_wrong_form_is_one_line_with_file_and_line(text: object, words: str) -> None:
    found, mistakes = parse(text)
    assert found is None
    (line,) = mistakes
    assert line.startswith("x.yaml:7: train.steps: ")
    assert words in line


def test_what_lies_within() -> None:
    assert FloatRange(0.0, 1.0, log=False).holds(1)
    assert not FloatRange(0.0, 1.0, log=False).holds(True)
    assert not FloatRange(0.0, 1.0, log=False).holds(1.1)
    assert IntRange(1, 9, 2, log=False).holds(3)
    assert not IntRange(1, 9, 2, log=False).holds(4)
    assert not IntRange(1, 9, 2, log=False).holds(3.0)
    assert Choice((1, "a")).holds(1)
    assert not Choice((1, "a")).holds(True)
