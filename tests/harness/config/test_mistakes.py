from __future__ import annotations

import pytest

from harness.config.mistakes import COMMAND_LINE, ConfigError, Mistake, Origin, nearest_name
from models.errors import UserError

PLACE = Origin("experiments/ablation/x.yaml", 12)


@pytest.mark.parametrize(
    ("mistake", "line"),
    [
        (
            Mistake(PLACE, "train.stpes", "unknown key", nearest="train.steps"),
            "experiments/ablation/x.yaml:12: train.stpes: unknown key (did you mean train.steps?)",
        ),
        (
            Mistake(COMMAND_LINE, "train.steps", "got 'many'", "a whole number >= 1"),
            "command line: train.steps: got 'many'; expected a whole number >= 1",
        ),
        (
            Mistake(COMMAND_LINE, "a.b", "got 'x'", "one of y, z", "y"),
            "command line: a.b: got 'x'; expected one of y, z (did you mean y?)",
        ),
        (Mistake(Origin("a.yaml"), "", "is not UTF-8 text"), "a.yaml: is not UTF-8 text"),
        (Mistake(COMMAND_LINE, "a\nb\x1b[31m", "x"), r"command line: a\nb\x1b[31m: x"),
        (Mistake(COMMAND_LINE, "größe", "x"), "command line: größe: x"),
    ],
)
def test_a_mistake_is_one_line(mistake: Mistake, line: str) -> None:
    assert str(mistake) == line


def test_an_error_holds_every_mistake_once_file_by_file_and_line_by_line() -> None:
    later, earlier = Mistake(Origin("x.yaml", 12), "a", "x"), Mistake(Origin("x.yaml", 3), "b", "y")
    other = Mistake(COMMAND_LINE, "c", "z")
    error = ConfigError([later, other, earlier, Mistake(Origin("x.yaml", 12), "a", "x")])
    assert isinstance(error, UserError)
    assert error.mistakes == (earlier, later, other)
    assert str(error) == f"{earlier}\n{later}\n{other}"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("stpes", "steps"),
        ("Steps", "steps"),
        ("learningrate", "learning_rate"),
        ("batchsize", "batch_size"),
        ("tyni", "tiny"),
        ("qwxz", None),
        ("", None),
    ],
)
def test_the_nearest_name_is_suggested_and_a_far_one_is_not(name: str, nearest: str | None) -> None:
    assert nearest_name(name, ["steps", "batch_size", "learning_rate", "tiny"]) == nearest
