"""The optional normalisation of queries and keys."""

from __future__ import annotations

from torch import Tensor, nn

from models.attention.base import AttentionShape
from models.attention.parts.products import full_precision


class WidthNorm(nn.Module):
    """RMSNorm over all D channels of queries or keys (B, N, D), before they are split into heads.

    Computed in float32 whatever the autocast; without `qk_norm` it changes nothing. Source: SANA,
    where it is off by default and its eps is 1e-5.
    """

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(shape.width, eps=1e-5) if shape.qk_norm else None

    def forward(self, tokens: Tensor) -> Tensor:
        if self.norm is None:
            return tokens
        (full,) = full_precision(tokens)
        return self.norm(full).to(tokens.dtype)
