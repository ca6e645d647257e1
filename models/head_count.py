"""How the width is divided into heads."""

from __future__ import annotations

from models.errors import UserError


def checked_head_dim(width: int, heads: int) -> int:
    """Channels of one head.

    Raises:
        UserError: the heads do not divide the width.
    """
    if width % heads:
        raise UserError(f"{heads} heads do not divide the width {width}: {width / heads:g} a head")
    return width // heads


def checked_heads(width: int, head_dim: int) -> int:
    """Heads of `head_dim` channels each.

    Raises:
        UserError: the head dimension does not divide the width.
    """
    if width % head_dim:
        raise UserError(
            f"attention.head_dim {head_dim} does not divide the width {width}: "
            f"{width / head_dim:g} heads"
        )
    return width // head_dim
