"""What all sections are: closed, frozen, and clear about which fields can change a result.

A field marked `without_effect` cannot change a result and stays out of the trial's hash; one marked
`added_later` stays out while it has its neutral value, so that older trials keep their hashes.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

WITHOUT_EFFECT = "without_effect_on_the_result"
NEUTRAL = "value_that_leaves_the_hash_as_it_was"


def without_effect(default: Any = ..., **constraints: Any) -> Any:
    """A field that cannot change a result beyond rounding; without a default it must be given."""
    return Field(default, json_schema_extra={WITHOUT_EFFECT: True}, **constraints)


def added_later(neutral: Any, **constraints: Any) -> Any:
    """A field that came after trials had been run, with the value that is what they did."""
    return Field(neutral, json_schema_extra={NEUTRAL: neutral}, **constraints)


class Section(BaseModel):
    """Frozen, with unknown keys, implicit conversions and NaN refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
