"""What is timed: attention blocks of our variants, diffusers' attention on our weights, and their
passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import yaml
from diffusers.models.attention_processor import Attention as DiffusersAttention
from diffusers.models.attention_processor import AttnProcessor2_0, SanaLinearAttnProcessor2_0
from pydantic import ValidationError
from torch import Tensor, nn

from harness.config.mistakes import nearest_name
from models.attention import build_attention, load_variant, variant_names
from models.attention.base import AttentionBlock, AttentionShape, ValueConvolutionConfig
from models.errors import UserError
from models.randomness import initialize

PEERS = {
    "diffusers_sana": ("sana", SanaLinearAttnProcessor2_0),
    "diffusers_dit": ("softmax", AttnProcessor2_0),
}
"""Other implementations, each with the variant that it computes."""

Pass = Literal["forward", "forward_backward"]


@dataclass(frozen=True)
class Setting:
    """What is the same for all blocks of one run."""

    width: int
    heads: int
    """The backbone's, for variants that do not choose theirs."""
    batch: int
    convolution: int
    """Size of the convolution of V in tokens; 0 leaves it out."""
    precision: Literal["float32", "bf16"]
    """bf16: parameters in float32, the pass under autocast, as in training."""
    compile: bool
    device: str

    def shape(self, count: int) -> AttentionShape:
        """The surroundings of a block: the most nearly square grid of so many tokens.

        Raises:
            UserError: `count` is below 1.
        """
        if count < 1:
            raise UserError(f"--tokens: {count} is no number of tokens; expected 1 or more")
        rows = next(r for r in range(math.isqrt(count), 0, -1) if count % r == 0)
        convolution = ValueConvolutionConfig(size=self.convolution, initialization="identity")
        return AttentionShape(
            width=self.width,
            heads=self.heads,
            grid=(rows, count // rows),
            value_convolution=convolution,
            qk_norm=False,
        )

    def tokens(self, count: int) -> Tensor:
        """Seeded input (B, N, D) of a block."""
        stream = torch.Generator().manual_seed(0)
        return torch.randn(self.batch, count, self.width, generator=stream).to(self.device)

    def work(self, block: nn.Module, tokens: Tensor, kind: Pass) -> Callable[[], None]:
        """One pass of a block as a call without arguments."""
        half = torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")

        def forward() -> None:
            with torch.no_grad(), half:
                block(tokens)

        def forward_backward() -> None:
            inputs = tokens.detach().requires_grad_()
            with half:
                out = block(inputs)
            # The gradient that a layer above would hand down; its values do not matter to the time.
            out.backward(out.detach())
            block.zero_grad(set_to_none=True)

        return forward if kind == "forward" else forward_backward


def build_block(word: str, shape: AttentionShape) -> nn.Module:
    """A variant or a peer at one size, with seeded weights: tokens (B, N, D) to the same shape.

    Args:
        word: `dydila`, `dydila:differential=off,kernel=relu`, or one of `PEERS`.
        shape: the block's surroundings.

    Raises:
        UserError: no such variant, no such field, or a value that it does not take.
    """
    name, _, fields = word.partition(":")
    if name in PEERS:
        ours, processor = PEERS[name]
        return _peer(_variant(ours, "", shape), processor())
    return _variant(name, fields, shape)


def _variant(name: str, fields: str, shape: AttentionShape) -> AttentionBlock:
    if name not in variant_names():
        known = (*variant_names(), *PEERS)
        near = nearest_name(name, known)
        hint = f"; did you mean {near}?" if near else ""
        raise UserError(
            f"there is no attention variant {name!r}: expected one of {', '.join(known)}{hint}"
        )
    values: dict[str, Any] = {}
    for part in filter(None, fields.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"{name}:{fields}: {part!r} is no FIELD=VALUE")
        # As in the files of experiments, `off` is a word and not a truth value.
        values[key] = value if value in ("on", "off", "yes", "no") else yaml.safe_load(value)
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


def _peer(ours: AttentionBlock, processor: Any) -> nn.Module:
    """Diffusers' attention with our projections."""
    theirs = DiffusersAttention(
        query_dim=ours.width,
        heads=ours.heads,
        kv_heads=ours.heads,
        dim_head=ours.width // ours.heads,
        bias=ours.qkv.bias is not None,
        out_bias=True,
        processor=processor,
    )
    with torch.no_grad():
        layers = (theirs.to_q, theirs.to_k, theirs.to_v)
        for layer, weight in zip(layers, ours.qkv.weight.chunk(3), strict=True):
            layer.weight.copy_(weight)
            if ours.qkv.bias is not None:
                layer.bias.zero_()
        theirs.to_out[0].load_state_dict(ours.output.state_dict())
    return theirs
