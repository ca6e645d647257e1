"""How a search file writes the values that a field may take: `loguniform(1e-3, 1e-1)`.

| written | means |
|---|---|
| `uniform(low, high)` | numbers in [low, high] |
| `loguniform(low, high)` | numbers in [low, high], evenly on a logarithmic scale; low > 0 |
| `int(low, high)`, `int(low, high, step)` | whole numbers low, low + step, ... up to high |
| `logint(low, high)` | whole numbers in [low, high], evenly on a logarithmic scale; low >= 1 |
| `choice(x, y, ...)` | one of these values, each a YAML scalar |
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from harness.config.mistakes import Mistake, nearest_name
from harness.config.yaml_source import Node, Scalar, parse_value, quoted


@dataclass(frozen=True)
class FloatRange:
    """Numbers in [low, high]."""

    low: float
    high: float
    log: bool

    def probes(self) -> tuple[Scalar, ...]:
        """Values that a field must accept if it is to accept all of them."""
        return self.low, self.high

    def holds(self, value: object) -> bool:
        """Whether a value lies within."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high  # type: ignore[operator]


@dataclass(frozen=True)
class IntRange:
    """Whole numbers low, low + step, ..., high."""

    low: int
    high: int
    step: int
    log: bool

    def probes(self) -> tuple[Scalar, ...]:
        """Values that a field must accept if it is to accept all of them; the second shows
        whether the step fits a field that takes multiples only."""
        return tuple(dict.fromkeys((self.low, self.low + self.step, self.high)))

    def holds(self, value: object) -> bool:
        """Whether a value is one of them."""
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high and (value - self.low) % self.step == 0


@dataclass(frozen=True)
class Choice:
    """One of at least two values."""

    values: tuple[Scalar, ...]

    def probes(self) -> tuple[Scalar, ...]:
        """All of them."""
        return self.values

    def holds(self, value: object) -> bool:
        """Whether a value is one of them, of the same type: 1 is neither true nor 1.0."""
        return any(type(value) is type(one) and value == one for one in self.values)


Dimension = FloatRange | IntRange | Choice
_Range = TypeVar("_Range", FloatRange, IntRange)


class _GrammarError(Exception):
    """What is wrong with one dimension, and what was expected."""

    def __init__(self, problem: str, expected: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.expected = expected


def parse_dimension(node: Node, key: str, mistakes: list[Mistake]) -> Dimension | None:
    """Read one entry of a search's space.

    Returns:
        The dimension; None, and a mistake, where it is written wrongly.
    """
    written = _CALL.fullmatch(node.value.strip()) if isinstance(node.value, str) else None
    if written is None:
        problem = f"got {quoted(node)}, which says nothing to search over"
        mistakes.append(Mistake(node.origin, key, problem, _FORMS))
        return None
    name, inside = written.groups()
    form = _READERS.get(name)
    if form is None:
        nearest = nearest_name(name, list(_READERS))
        mistakes.append(Mistake(node.origin, key, f"unknown form '{name}'", _FORMS, nearest))
        return None
    # Read by the rules of our YAML, so that 1e-3 is a number and off is text.
    found: list[Mistake] = []
    arguments = parse_value(f"[{inside}]", node.origin, key, found)
    mistakes += [replace(mistake, origin=node.origin) for mistake in found]
    if arguments is None or not isinstance(arguments.value, tuple):
        return None
    values = [argument.value for argument in arguments.value]
    nested = [quoted(item) for item in arguments.value if isinstance(item.value, dict | tuple)]
    try:
        if nested:
            raise _GrammarError(f"{nested[0]} is not a single value", form.shown)
        return form.read([value for value in values if not isinstance(value, dict | tuple)])
    except _GrammarError as error:
        shown = f"{quoted(node)}: {error.problem}"
        mistakes.append(Mistake(node.origin, key, shown, error.expected or form.shown))
        return None


def _uniform(values: Sequence[object]) -> FloatRange:
    low, high = _numbers(values, 2, 2)
    return _ordered(FloatRange(float(low), float(high), log=False))


def _loguniform(values: Sequence[object]) -> FloatRange:
    low, high = _numbers(values, 2, 2)
    if low <= 0:
        raise _GrammarError("a logarithmic scale has no zero", "low > 0")
    return _ordered(FloatRange(float(low), float(high), log=True))


def _int(values: Sequence[object]) -> IntRange:
    low, high, *rest = _whole_numbers(values, 2, 3)
    step = rest[0] if rest else 1
    if step < 1:
        raise _GrammarError(f"the step is {step}", "a step >= 1")
    dimension = _ordered(IntRange(low, high, step, log=False))
    over = (high - low) % step
    if over:
        nearest = f"such as int({low}, {high - over}, {step})"
        raise _GrammarError("no whole number of steps leads from low to high", nearest)
    return dimension


def _logint(values: Sequence[object]) -> IntRange:
    low, high = _whole_numbers(values, 2, 2)
    if low < 1:
        raise _GrammarError("a logarithmic scale has no zero", "low >= 1")
    return _ordered(IntRange(low, high, 1, log=True))


def _choice(values: Sequence[object]) -> Choice:
    scalars = tuple(value for value in values if isinstance(value, str | int | float | None))
    if len(scalars) < 2:
        raise _GrammarError("there is nothing to choose from", "at least two values")
    if any(isinstance(value, float) and not math.isfinite(value) for value in scalars):
        raise _GrammarError("values must be finite")
    for index, value in enumerate(scalars):
        # 1 and 1.0 are the same configuration, while 1 and true are not.
        same_kind = [x for x in scalars[:index] if isinstance(x, bool) == isinstance(value, bool)]
        if value in same_kind:
            raise _GrammarError("a value is listed twice")
    return Choice(scalars)


def _numbers(values: Sequence[object], least: int, most: int) -> list[int | float]:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) != len(values) or not all(math.isfinite(number) for number in numbers):
        raise _GrammarError("the bounds must be finite numbers")
    if not least <= len(numbers) <= most:
        wanted = str(least) if least == most else f"{least} or {most}"
        raise _GrammarError(f"has {len(numbers)} values instead of {wanted}")
    return numbers


def _whole_numbers(values: Sequence[object], least: int, most: int) -> list[int]:
    numbers = _numbers(values, least, most)
    if not all(isinstance(number, int) for number in numbers):
        raise _GrammarError("the bounds must be whole numbers")
    return [int(number) for number in numbers]


def _ordered(dimension: _Range) -> _Range:
    if dimension.low >= dimension.high:
        raise _GrammarError("the range is empty", "low < high")
    return dimension


@dataclass(frozen=True)
class _Form:
    read: Callable[[Sequence[object]], Dimension]
    shown: str


_CALL = re.compile(r"([A-Za-z_]\w*)\s*\((.*)\)", flags=re.DOTALL)
_READERS = {
    "uniform": _Form(_uniform, "uniform(low, high)"),
    "loguniform": _Form(_loguniform, "loguniform(low, high)"),
    "int": _Form(_int, "int(low, high) or int(low, high, step)"),
    "logint": _Form(_logint, "logint(low, high)"),
    "choice": _Form(_choice, "choice(x, y, ...)"),
}
_FORMS = (
    "one of uniform(low, high), loguniform(low, high), int(low, high[, step]), logint(low, high), "
    "choice(x, y, ...)"
)
