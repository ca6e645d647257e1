"""One file of latents: written whole, mapped into memory, every row checked when it is read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.machine.files import atomic_path
from harness.vocabulary.names import short_hash
from models.errors import UserError, one_line

_MOMENTS, _DIGESTS = "moments", "sha256"
_METADATA = "latents"
"""One entry with all of it: safetensors writes several in random order."""
_CODES = {torch.float16: "F16", torch.float32: "F32"}
_DIGEST_BYTES = hashlib.sha256().digest_size
_MEND = "delete it and run `python -m harness data encode` again"


def shard_name(number: int) -> str:
    """shard-00007.safetensors."""
    return f"shard-{number:05}.safetensors"


@dataclass(frozen=True)
class ShardFacts:
    """What a shard says of itself, and what its cache expects of it."""

    ids: tuple[str, ...]
    """By place."""
    autoencoder: str
    manifest: str
    cache: str
    """Identities."""

    def as_json(self) -> str:
        """For the file's metadata."""
        return json.dumps(asdict(self), sort_keys=True)

    def check_same(self, found: dict[str, Any], path: Path) -> None:
        """See that a file's metadata are these. Raises a UserError if they are not."""
        for name in ("autoencoder", "manifest", "cache"):
            expected, other = getattr(self, name), found.get(name)
            if other != expected:
                raise UserError(
                    f"{path} is of another {name} ({short_hash(str(other))}) than its folder "
                    f"({short_hash(expected)}): {_MEND}"
                )
        if found.get("ids") != list(self.ids):
            raise UserError(f"{path} holds other images than the manifest has in it: {_MEND}")


def write_shard(path: Path, facts: ShardFacts, moments: Tensor) -> None:
    """Write a shard of N images atomically; `moments` are (N, 2, C', h, w) in the type that they
    are stored in, and [:, 1] is of the mirror images."""
    moments = moments.contiguous()
    digests = np.array([[_digest(row) for row in pair] for pair in moments.numpy()])
    tensors = {_MOMENTS: moments, _DIGESTS: torch.from_numpy(digests)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_METADATA: facts.as_json()})


class Shard:
    """A shard that is mapped into memory, so that only the rows asked for are read.

    It must say `facts` of itself and hold rows of `row_shape`, C', h and w, in `dtype`. Raises a
    UserError if it does not, is missing or is cut short.
    """

    def __init__(
        self, path: Path, facts: ShardFacts, row_shape: tuple[int, int, int], dtype: torch.dtype
    ) -> None:
        self.path = path
        self.ids = facts.ids
        if not path.is_file():
            raise UserError(f"{path} is missing: run `python -m harness data encode` again")
        try:
            # It compares the length of the file with what its header says.
            file = safe_open(path, framework="pt")
            self._moments = file.get_slice(_MOMENTS)
            self._digests: NDArray[np.uint8] = file.get_tensor(_DIGESTS).numpy()
            found = dict(json.loads((file.metadata() or {})[_METADATA]))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"{path} is cut short or damaged ({one_line(error)}): {_MEND}"
            ) from error
        facts.check_same(found, path)
        count = len(facts.ids)
        expected = [count, 2, *row_shape], _CODES[dtype]
        stored = self._moments.get_shape(), self._moments.get_dtype()
        if stored != expected or self._digests.shape != (count, 2, _DIGEST_BYTES):
            raise UserError(f"{path} holds {stored} instead of {expected}: {_MEND}")

    def moments(self, place: int, mirrored: bool) -> Tensor:
        """What is stored of an image or its mirror image, (C', h, w) float32, as a copy. Raises a
        UserError if it is not what was written."""
        row: Tensor = self._moments[place, int(mirrored)]
        if not np.array_equal(_digest(row.numpy()), self._digests[place, int(mirrored)]):
            raise UserError(
                f"{self.path} is damaged: what it holds of {self.ids[place]} does not have the "
                f"SHA-256 that was written with it; {_MEND}"
            )
        return row.to(torch.float32, copy=True)


def _digest(row: NDArray[Any]) -> NDArray[np.uint8]:
    """(32,) SHA-256 of a row as it is stored."""
    return np.frombuffer(hashlib.sha256(row.data).digest(), dtype=np.uint8)
