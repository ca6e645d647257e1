from __future__ import annotations

import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from harness.config.mistakes import Mistake, Origin
from harness.config.yaml_source import parse_value
from harness.search.space import holds, read_dimension
from tests.support.messages import told

ORIGIN = Origin("x.yaml", 1)


def read(text: str, *, whole: bool = False) -> tuple[BaseDistribution | None, list[str]]:
    mistakes: list[Mistake] = []
    node = parse_value(text, ORIGIN, "train.steps", mistakes)
    assert node is not None
    found = read_dimension(node, "train.steps", whole=whole, mistakes=mistakes)
    return found, [str(mistake) for mistake in mistakes]


@pytest.mark.parametrize(
    ("text", "whole", "expected"),
    [
        ("{low: 0, high: 1}", False, FloatDistribution(0.0, 1.0)),
        ("{low: -2.5, high: 1e1}", False, FloatDistribution(-2.5, 10.0)),
        ("{low: 1e-3, high: .1, log: true}", False, FloatDistribution(0.001, 0.1, log=True)),
        ("{low: 1, high: 9}", True, IntDistribution(1, 9)),
        ("{low: 1, high: 9, step: 2}", True, IntDistribution(1, 9, step=2)),
        ("{low: -4, high: 0x10, step: 4}", True, IntDistribution(-4, 16, step=4)),
        ("{low: 1, high: 1024, log: true}", True, IntDistribution(1, 1024, log=True)),
        # The field itself refuses what is not whole.
        ("{low: 1.5, high: 3}", True, FloatDistribution(1.5, 3.0)),
        ("[dynamic, off]", False, CategoricalDistribution(("dynamic", "off"))),
        ("[true, no, null, 1e-3, 2]", False, CategoricalDistribution((True, "no", None, 1e-3, 2))),
        ("[1, true]", False, CategoricalDistribution((1, True))),
    ],
)
def test_ranges_and_lists_are_read_as_written(
    text: str, whole: bool, expected: BaseDistribution
) -> None:
    found, mistakes = read(text, whole=whole)
    assert mistakes == []
    assert found == expected
    assert repr(found) == repr(expected)  # 1 == True, so equality alone is not enough


@pytest.mark.parametrize(
    ("text", "key", "suggestion"),
    [
        ("0.5", "", None),
        ("{low: 1}", ".high", None),
        ("{lwo: 1, high: 2}", ".lwo", "train.steps.low"),
        ("{low: a, high: 2}", ".low", None),
        ("{low: true, high: 2}", ".low", None),
        ("{low: .nan, high: 2}", ".low", None),
        ("{low: 0, high: .inf}", ".high", None),
        ("{low: 2, high: 1}", "", None),
        ("{low: 1, high: 1}", "", None),
        ("{low: 0, high: 8, log: true}", "", None),
        ("{low: 1, high: 9, step: 0}", ".step", None),
        ("{low: 1, high: 10, step: 2}", "", None),
        ("{low: 1, high: 9, step: 2, log: true}", "", None),
        ("[3]", "", None),
        ("[]", "", None),
        ("[a, b, a]", "", None),
        ("[1, 1.0]", "", None),
        ("[[1, 2], 3]", "", None),
        ("[1, .inf]", "", None),
    ],
)
def test_a_wrong_form_is_told_with_file_line_and_key(
    text: str, key: str, suggestion: str | None
) -> None:
    found, mistakes = read(text, whole=True)
    assert found is None
    (line,) = [line for line in mistakes if ".low: missing" not in line]
    assert told(line) == ("x.yaml:1", f"train.steps{key}", suggestion)


def test_steps_are_for_whole_numbers() -> None:
    found, (line,) = read("{low: 0, high: 1, step: 1}")
    assert found is None
    assert told(line)[:2] == ("x.yaml:1", "train.steps.step")


@pytest.mark.parametrize(
    ("former", "form"),
    [
        ("uniform(0.5, 5)", "{low: 0.5, high: 5}"),
        ("loguniform( 1e-3, 1 )", "{low: 1e-3, high: 1, log: true}"),
        ("int(2, 8, 2)", "{low: 2, high: 8, step: 2}"),
        ("logint(16, 256)", "{low: 16, high: 256, log: true}"),
        ("choice(dynamic, relu)", "[dynamic, relu]"),
    ],
)
def test_a_form_of_earlier_files_is_told_with_what_stands_for_it(former: str, form: str) -> None:
    found, (line,) = read(f"'{former}'")
    assert found is None
    assert form in line
    assert read(form, whole=True)[1] == []


def test_what_can_be_drawn() -> None:
    assert holds(FloatDistribution(0.0, 1.0), 1)
    assert not holds(FloatDistribution(0.0, 1.0), True)
    assert not holds(FloatDistribution(0.0, 1.0), 1.1)
    assert holds(IntDistribution(1, 9, step=2), 3)
    assert not holds(IntDistribution(1, 9, step=2), 4)
    assert not holds(IntDistribution(1, 9, step=2), 3.0)
    assert holds(CategoricalDistribution((1, "a")), 1)
    assert not holds(CategoricalDistribution((1, "a")), True)
