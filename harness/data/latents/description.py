"""What a cache of latents says of itself, in `cache.json`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.data.latents.space import LatentSpace
from models.errors import UserError

DESCRIPTION = "cache.json"
FORMAT: Literal[1] = 1

StorageType: TypeAlias = Literal["float16", "float32"]
STORAGE: dict[StorageType, torch.dtype] = {"float16": torch.float16, "float32": torch.float32}

_SHOWN_DIGITS = 12


class CacheDescription(BaseModel):
    """Of what images a cache holds the latents, and how they were made."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    format: Literal[1] = FORMAT
    manifest_name: str
    manifest_hash: str
    resolution: int
    """Pixels a side."""
    decoding: str
    """The version of how files become pixels."""
    dtype: StorageType
    shard_sizes: tuple[int, ...]
    """Images in each shard."""
    autoencoder: LatentSpace

    @property
    def identity(self) -> str:
        """SHA-256 of everything that can change a latent, in hex."""
        facts = (
            self.format,
            self.manifest_hash,
            self.resolution,
            self.decoding,
            self.dtype,
            asdict(self.autoencoder),
        )
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def check_same(self, wanted: CacheDescription, folder: Path) -> None:
        """See that latents made as `wanted` belong into this cache. Shards may be of any size.

        Raises:
            UserError: they do not, with both values of each difference.
        """
        ours, theirs = self._facts(), wanted._facts()
        differences = [
            f"{name} {_shown(ours[name])} instead of {_shown(theirs[name])}"
            for name in ours
            if ours[name] != theirs[name]
        ]
        if differences:
            raise UserError(
                f"{folder} holds latents of {', '.join(differences)}: name an empty folder, or "
                "encode as they were begun"
            )

    def _facts(self) -> dict[str, Any]:
        """What must agree, with names for a message; those that follow from others stand last."""
        space = {
            f"the autoencoder's {field.name}": getattr(self.autoencoder, field.name)
            for field in fields(LatentSpace)
        }
        return {
            "the manifest": self.manifest_hash,
            "the resolution": self.resolution,
            "the decoding": self.decoding,
            "the dtype": self.dtype,
            **space,
        }


def read_description(folder: Path) -> CacheDescription:
    """The description in the folder of a cache.

    Raises:
        UserError: there is none, or it is damaged or of another format.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(
            f"{folder} holds no latents, as it lacks {DESCRIPTION}; "
            "`python -m harness data encode` writes them"
        )
    try:
        return CacheDescription.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise UserError(
            f"{path} does not describe latents of format {FORMAT}, the only one known: "
            f"{where}: {first['msg']}"
        ) from error


def _shown(value: object) -> str:
    """Hashes are cut, as they are where else the user meets them."""
    text = str(value)
    is_hash = len(text) == hashlib.sha256().digest_size * 2
    return f"{text[:_SHOWN_DIGITS]}..." if is_hash else text
