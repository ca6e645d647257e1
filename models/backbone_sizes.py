"""The named sizes of the diffusion transformer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BackboneSize:
    """Depth in blocks, width in channels, heads of softmax attention."""

    depth: int
    width: int
    heads: int


BACKBONE_SIZES = {
    # Ours, for a laptop; the head dimension of 32 is SANA's.
    "tiny": BackboneSize(depth=4, width=64, heads=2),
    # DiT (Peebles and Xie 2023), table 1.
    "S": BackboneSize(depth=12, width=384, heads=6),
    "B": BackboneSize(depth=12, width=768, heads=12),
    "L": BackboneSize(depth=24, width=1024, heads=16),
    "XL": BackboneSize(depth=28, width=1152, heads=16),
}
