from __future__ import annotations

import math

import pytest

from harness.config.yaml_source import read_plain_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # The examples of YAML 1.2.2, chapter 10.
        ("null", None),
        ("~", None),
        ("", None),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("0", 0),
        ("0o7", 7),
        ("0x3A", 58),
        ("-19", -19),
        ("0.", 0.0),
        ("-0.0", -0.0),
        (".5", 0.5),
        ("+12e03", 12000.0),
        ("-2E+05", -200000.0),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("+.INF", math.inf),
        # What YAML 1.1 reads otherwise.
        ("1e-4", 1e-4),
        ("1e3", 1000.0),
        ("010", 10),
        ("no", "no"),
        ("off", "off"),
        ("On", "On"),
        ("yes", "yes"),
        ("y", "y"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("0b1", "0b1"),
        ("2026-11-25", "2026-11-25"),
        # Words.
        ("nul", "nul"),
        ("tRue", "tRue"),
        ("1e", "1e"),
        (".", "."),
        ("-", "-"),
        ("e5", "e5"),
        ("0x", "0x"),
        ("-0x1", "-0x1"),
        ("inf", "inf"),
        ("nan", "nan"),
        ("\u0661", "\u0661"),
    ],
)
def test_a_plain_scalar_has_the_value_of_yaml_1_2(text: str, value: object) -> None:
    read = read_plain_scalar(text)
    assert type(read) is type(value)
    assert read == value


def test_not_a_number_is_a_number() -> None:
    assert math.isnan(read_plain_scalar(".nan"))  # type: ignore[arg-type]
