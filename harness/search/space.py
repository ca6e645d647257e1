"""What a search file says about the values of a field, as Optuna's distributions.

| written | means |
|---|---|
| `{low: 0.5, high: 5}` | numbers in [low, high]; whole ones where the field holds whole numbers |
| `{low: 1e-3, high: 1, log: true}` | evenly on a logarithmic scale; low > 0 |
| `{low: 2, high: 8, step: 2}` | whole numbers low, low + step, ... up to high |
| `[dynamic, relu, static]` | one of these values |
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import Field, model_validator

from harness.config.mistakes import Mistake
from harness.config.sections import Section
from harness.config.validation import validate
from harness.config.yaml_source import Node, Scalar, quoted

_FORMS = "{low: X, high: Y}, with log: true or step: N where wanted, or a list of values"
_FORMER = re.compile(r"(uniform|loguniform|int|logint|choice)\s*\((.*)\)", flags=re.DOTALL)


class _Range(Section):
    """The keys of a range."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _holds_several_values(self) -> _Range:
        over = (self.high - self.low) % (self.step or 1)
        problems = {
            "the range is empty: low must be less than high": self.low >= self.high,
            "a logarithmic scale has no zero: low must be positive": self.log and self.low <= 0,
            "a logarithmic scale has no steps: leave out log or step": self.log and self.step,
            f"no whole number of steps leads from low to high: high may be {self.high - over}": (
                self.step and over
            ),
        }
        if any(problems.values()):
            raise ValueError("\n".join(text for text, found in problems.items() if found))
        return self


def dimensions(space: Node, prefix: str = "") -> Iterator[tuple[str, Node]]:
    """The fields that a nested space names, by dotted key, and what it says about each."""
    for key, child in space.entries().items():
        is_range = not set(_Range.model_fields).isdisjoint(child.entries())
        if child.entries() and not is_range:
            yield from dimensions(child, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", child


def read_dimension(
    node: Node, key: str, *, whole: bool, mistakes: list[Mistake]
) -> BaseDistribution | None:
    """Read what a search says, in a range or a list, about the field called `key`, which takes
    numbers that are `whole` or any.

    Returns:
        The distribution; None, and mistakes, where it is written wrongly.
    """
    if isinstance(node.value, tuple):
        return _choice(node, key, mistakes)
    if not node.entries():
        former = _FORMER.fullmatch(node.value.strip()) if isinstance(node.value, str) else None
        problem = f"got {quoted(node)}, which says nothing to search over"
        expected = _FORMS if former is None else _rewritten(former[1], former[2])
        mistakes.append(Mistake(node.origin, key, problem, expected))
        return None
    found: list[Mistake] = []
    written = validate(_Range, [node], found)
    for it in found:
        inside = f"{key}.{it.key}" if it.key else key
        mistakes.append(replace(it, key=inside, nearest=it.nearest and f"{key}.{it.nearest}"))
    if written is None:
        return None
    low, high = written.low, written.high
    if whole and isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=written.log, step=written.step or 1)
    if written.step is not None:
        problem = "only whole numbers of a field that holds whole numbers have steps"
        mistakes.append(Mistake(node.origin, f"{key}.step", problem))
        return None
    return FloatDistribution(float(low), float(high), log=written.log)


def probes(distribution: BaseDistribution) -> tuple[Scalar, ...]:
    """Values that a field must accept if it is to accept all; the second one of whole numbers shows
    whether the step fits a field that takes multiples only."""
    match distribution:
        case IntDistribution(low=low, high=high, step=step):
            return tuple(dict.fromkeys((low, low + step, high)))
        case FloatDistribution(low=low, high=high):
            return low, high
        case CategoricalDistribution(choices=choices):
            return choices
    raise TypeError(distribution)


def holds(distribution: BaseDistribution, value: object) -> bool:
    """Whether a value is one that can be drawn; of choices, one of the same type, since 1 is
    neither true nor 1.0."""
    if isinstance(distribution, CategoricalDistribution):
        return any(type(value) is type(one) and value == one for one in distribution.choices)
    if isinstance(distribution, IntDistribution):
        drawn = range(distribution.low, distribution.high + 1, distribution.step)
        return type(value) is int and value in drawn
    assert isinstance(distribution, FloatDistribution)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return distribution.low <= value <= distribution.high


def _choice(node: Node, key: str, mistakes: list[Mistake]) -> CategoricalDistribution | None:
    values = node.plain()
    if any(isinstance(value, dict | list) for value in values):
        problem = "holds a list or a section; expected single values"
    elif len(values) < 2:
        problem = "leaves nothing to choose from; expected at least two values"
    elif any(isinstance(value, float) and not math.isfinite(value) for value in values):
        problem = "holds a number that is not finite"
    # 1 and 1.0 are the same configuration, while 1 and true are not.
    elif len({(isinstance(value, bool), value) for value in values}) < len(values):
        problem = "lists a value twice"
    else:
        return CategoricalDistribution(values)
    mistakes.append(Mistake(node.origin, key, f"{quoted(node)} {problem}"))
    return None


def _rewritten(form: str, inside: str) -> str:
    """What stands for a form such as `uniform(1, 3)` of earlier search files."""
    if form == "choice":
        return f"[{inside}]"
    low, high, *step = [*(part.strip() for part in inside.split(",")), "", ""][:3]
    log = ", log: true" if form.startswith("log") else ""
    steps = f", step: {step[0]}" if step[0] else ""
    return f"{{low: {low}, high: {high}{log}{steps}}}"
