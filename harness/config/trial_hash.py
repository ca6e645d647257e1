"""A short name for everything that can change a trial's result."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel

from harness.config.schema import TrialConfig
from harness.config.sections import can_change_results
from harness.vocabulary.names import short_hash

HASH_VERSION = 2
"""Bump it when code changes so that equal configurations give other results: every trial is then
run anew instead of reusing what older code made."""

_TRAINING = ("seed", "data", "model", "attention", "objective", "train")


def trial_hash(config: TrialConfig) -> str:
    """12 hex digits over all fields that can change a figure of the trial.

    Equal configurations have equal hashes in every process and on every machine.
    """
    return _digest(_trial_fields(config))


def training_hash(config: TrialConfig) -> str:
    """12 hex digits over the fields that the trained weights depend on, so without sampling and
    evaluation."""
    fields = _trial_fields(config)
    return _digest({key: fields[key] for key in _TRAINING})


def _trial_fields(config: TrialConfig) -> dict[str, Any]:
    # Validated once more, a default of 1 in a field of numbers becomes the 1.0 of a file.
    return _effective_fields(TrialConfig.model_validate(config.model_dump()))


def _effective_fields(section: BaseModel) -> dict[str, Any]:
    return {
        name: _canonical(getattr(section, name))
        for name, field in type(section).model_fields.items()
        if can_change_results(field, getattr(section, name))
    }


def _canonical(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _effective_fields(value)
    if isinstance(value, tuple):
        return [_canonical(item) for item in value]
    # Adding zero turns -0.0 into 0.0, which it equals.
    return value + 0.0 if isinstance(value, float) else value


def _digest(fields: dict[str, Any]) -> str:
    text = json.dumps(
        {"version": HASH_VERSION, "fields": fields},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
        allow_nan=False,
    )
    return short_hash(hashlib.sha256(text.encode("ascii")).hexdigest())
