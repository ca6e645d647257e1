"""The identity of a metric: all that a quality figure depends on besides the model.

Figures whose identities differ are different quantities, and no column holds both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from harness.vocabulary.names import short_hash
from models.errors import UserError

EXTRACTOR = "extractor"
SAMPLES = "samples"
REFERENCE = "reference"
_HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_REFERENCE_COUNT = re.compile(r"\((\d+) images\)$")
_NOT_RECORDED = "(not recorded)"

Identity = Mapping[str, Any]


def parse_identity(text: str | None, where: str) -> dict[str, Any]:
    """Read the tag's JSON object; no tag gives an empty identity.

    Raises:
        UserError: the text is not a JSON object; the message begins with `where`.
    """
    try:
        identity = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: its metric identity is not JSON ({error})") from error
    if not isinstance(identity, dict):
        raise UserError(f"{where}: its metric identity is {text}, but a JSON object is expected")
    return identity


def differing_fields(identities: Mapping[str, Identity]) -> dict[str, dict[str, list[str]]]:
    """The fields in which identities differ: field to JSON of a value to the names that have it.

    `identities` are by name, such as a trial's.
    """
    differing = {}
    for field in sorted({field for identity in identities.values() for field in identity}):
        names_of: dict[str, list[str]] = {}
        for name, identity in identities.items():
            names_of.setdefault(_shown(identity, field), []).append(name)
        if len(names_of) > 1:
            differing[field] = names_of
    return differing


def shared_identity(identities: Mapping[str, Identity], remedy: str) -> dict[str, Any]:
    """The one identity that all trials share; empty without trials.

    Raises:
        UserError: at least two differ. The message names each field, its values and the trials that
            have them, and ends with `remedy`.
    """
    lines = [
        f"  {field}: "
        + "; ".join(f"{value} ({', '.join(trials)})" for value, trials in names_of.items())
        for field, names_of in differing_fields(identities).items()
    ]
    if lines:
        raise UserError(
            "these trials were not measured in the same way, so their figures cannot share a "
            "column:\n" + "\n".join([*lines, remedy])
        )
    return dict(next(iter(identities.values()), {}))


def floor_mismatch(floor: Identity, identity: Identity) -> str | None:
    """Why the floor does not belong beside these figures; None where it does.

    Extractor, sample count and reference must be recorded on both sides. All else that both sides
    record (the hash of the weights, say) must agree as well; sampler and guidance mean nothing for
    real images, so a floor leaves them out.
    """
    needed = (EXTRACTOR, SAMPLES, REFERENCE)
    for field in (*needed, *sorted((floor.keys() & identity.keys()) - set(needed))):
        here, there = _shown(floor, field), _shown(identity, field)
        if here != there or here == _NOT_RECORDED:
            return f"{field} is {here} for real against real, but {there} for the trials"
    return None


def sample_count(identity: Identity) -> int | None:
    """Generated images behind each quality figure; None where it was not recorded."""
    samples = identity.get(SAMPLES)
    return samples if isinstance(samples, int) else None


def reference_count(identity: Identity) -> int | None:
    """Real images behind the reference; None where it was not recorded."""
    found = _REFERENCE_COUNT.search(str(identity.get(REFERENCE)))
    return int(found[1]) if found else None


def describe_identity(identity: Identity, without: Collection[str] = ()) -> str:
    """`sampler flow_euler, steps 50, ...` in the order in which it was recorded."""
    return ", ".join(
        f"{field.replace('_', ' ')} "
        f"{shortened(value) if isinstance(value, str) else json.dumps(value)}"
        for field, value in identity.items()
        if field not in without and value is not None
    )


def shortened(text: str) -> str:
    """The first digits of a SHA-1 or SHA-256 in hexadecimal; any other text as it is."""
    return short_hash(text) if _HASH.fullmatch(text) else text


def _shown(identity: Identity, field: str) -> str:
    return json.dumps(identity[field], sort_keys=True) if field in identity else _NOT_RECORDED
