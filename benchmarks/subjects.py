"""What the attention benchmark times: our variants, and diffusers' attention on our weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from diffusers.models.attention_processor import (
    Attention as DiffusersAttention,
)
from diffusers.models.attention_processor import (
    AttnProcessor2_0,
    SanaLinearAttnProcessor2_0,
)
from pydantic import ValidationError
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.config.mistakes import nearest_name
from models.attention import AttentionShape, build_attention, load_variant, variant_names
from models.attention.base import AttentionBlock
from models.errors import UserError
from models.initialization import initialize

PEERS = ("diffusers_sana", "diffusers_dit")
"""Other implementations of `sana` and `softmax`."""


@dataclass(frozen=True)
class Subject:
    """One attention block to be timed."""

    name: str
    block: nn.Module
    """Tokens (B, N, D) to tokens of the same shape."""


def build_subject(word: str, shape: AttentionShape) -> Subject:
    """A variant or a peer at one size, with seeded weights.

    Args:
        word: `dydila`, `dydila:differential=off,kernel=relu`, or one of `PEERS`.
        shape: the block's surroundings.

    Raises:
        UserError: no such variant, no such field, or a value that it does not take.
    """
    name, _, fields = word.partition(":")
    if name == "diffusers_sana":
        return Subject(word, _peer(_variant("sana", "", shape), shape, linear=True))
    if name == "diffusers_dit":
        return Subject(word, _peer(_variant("softmax", "", shape), shape, linear=False))
    return Subject(word, _variant(name, fields, shape))


def sdpa_backends(width: int, heads: int, tokens: int, device: torch.device) -> tuple[str, ...]:
    """The backends of PyTorch's scaled_dot_product_attention that take these shapes here."""
    rows = torch.zeros(1, heads, tokens, width // heads, device=device)
    usable = []
    for name in ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH"):
        backend = getattr(SDPBackend, name)
        try:
            with sdpa_kernel(backend):
                nn.functional.scaled_dot_product_attention(rows, rows, rows)
        except RuntimeError:
            continue
        usable.append(name.lower())
    return tuple(usable)


def _variant(name: str, fields: str, shape: AttentionShape) -> AttentionBlock:
    if name not in variant_names():
        known = (*variant_names(), *PEERS)
        near = nearest_name(name, known)
        hint = f"; did you mean {near}?" if near else ""
        raise UserError(
            f"there is no attention variant {name!r}: expected one of {', '.join(known)}{hint}"
        )
    values = _parsed_fields(name, fields)
    try:
        config = load_variant(name).config(**values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{name}:{fields}: {place}: {first['msg']}") from error
    block = build_attention(config, shape)
    # Weights that are not drawn hold whatever was in memory, denormal numbers among them.
    initialize(block, seed=0)
    return block


def _parsed_fields(name: str, fields: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for part in filter(None, fields.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"{name}:{fields}: {part!r} is no FIELD=VALUE")
        # As in the files of experiments, `off` is a word and not a truth value.
        values[key] = value if value in ("on", "off", "yes", "no") else yaml.safe_load(value)
    return values


def _peer(ours: AttentionBlock, shape: AttentionShape, *, linear: bool) -> nn.Module:
    """Diffusers' attention with our projections."""
    processor: Callable[[], Any] = SanaLinearAttnProcessor2_0 if linear else AttnProcessor2_0
    theirs = DiffusersAttention(
        query_dim=shape.width,
        heads=ours.heads,
        kv_heads=ours.heads,
        dim_head=shape.width // ours.heads,
        bias=ours.qkv.bias is not None,
        out_bias=True,
        processor=processor(),
    )
    with torch.no_grad():
        layers = (theirs.to_q, theirs.to_k, theirs.to_v)
        for layer, weight in zip(layers, ours.qkv.weight.chunk(3), strict=True):
            layer.weight.copy_(weight)
            if ours.qkv.bias is not None:
                layer.bias.zero_()
        theirs.to_out[0].load_state_dict(ours.output.state_dict())
    return theirs
