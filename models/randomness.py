"""Random streams that depend on what they are for, and on nothing else.

Every random draw of a trial comes from a generator keyed by its purpose and position, such as
`generator("noise", seed, step)`. No stream depends on how many numbers another one drew, so the
noise, timesteps and data order are the same in every variant, and resuming needs no saved state.
Draws are made on the CPU, so that they are also the same on every device.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) that is a hash of its parts, stable over processes and versions."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(*parts)`."""
    return torch.Generator().manual_seed(derive_seed(*parts))
