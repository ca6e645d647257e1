"""What tests of latents are encoded with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.data.latents.encode import EncodeSpec


def encode_spec(folder: Path, **options: Any) -> EncodeSpec:
    """How to encode into a folder; what is encoded is given opened, so that it has no names."""
    nameless = dict.fromkeys(("source", "autoencoder", "manifest", "device"), "")
    numbers = {"resolution": 8, "batch_size": 4, "images_per_shard": 10, "loaders": 2}
    return EncodeSpec(**{**nameless, **numbers, "dtype": "float16", "out": str(folder), **options})
