"""Tests for the one-line texts of errors."""

import pytest

from models.errors import first_line, one_line


def test_a_text_of_several_lines_becomes_one() -> None:
    assert one_line(ValueError("first\n  second\t third\n")) == "first second third"
    assert one_line("first\nsecond") == "first second"


def test_an_error_without_text_is_told_by_its_class() -> None:
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert one_line(ValueError(), named=True) == "ValueError"
    assert first_line(ValueError(" \n ")) == "ValueError"


def test_the_class_stands_in_front_where_asked_for() -> None:
    assert one_line(OSError("no\nspace"), named=True) == "OSError: no space"


@pytest.mark.parametrize("length", [10, 11, 500])
def test_a_long_text_is_cut_to_the_length_asked_for(length: int) -> None:
    shown = one_line("x" * length, most=10)
    assert len(shown) == 10
    assert shown.endswith("...") == (length > 10)


def test_the_first_line_is_the_first_that_holds_anything() -> None:
    assert first_line(RuntimeError("\n  cause  here\nadvice\n")) == "cause here"
