"""The one diffusion transformer that all variants share, its blocks and its named sizes.

Source: DiT (Peebles and Xie 2023): blocks with adaLN-Zero modulation (section 3.2), sizes of
table 1.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.attention import AnyAttention, build_attention
from models.attention.base import AttentionBlock, AttentionShape, ValueConvolutionConfig, convolve
from models.attention.parts.load_balance import forgetting
from models.attention.parts.products import SumPrecision
from models.embeddings import LabelEmbedding, TimestepEmbedding, position_embedding
from models.errors import UserError
from models.randomness import SelfInitialized, initialize

Side = Annotated[int, Field(ge=1, le=2**16)]
"""A number of channels, rows, columns or pixels."""

MOST_TOKENS = 2**20
"""The most that a network can be built for: 1024x1024 pixels in patches of one."""

FeedForwardKind = Literal["mlp", "mix"]


def modulate(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """`x (1 + scale) + shift`, with tokens (B, N, D) and shift and scale (B, D)."""
    return torch.addcmul(shift[:, None], tokens, 1 + scale[:, None])


class Modulation(nn.Module, SelfInitialized):
    """The condition (B, D) to `parts` vectors (B, D) each, all zero at first."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(width, parts * width)

    def initialize(self, generator: torch.Generator) -> None:
        nn.init.zeros_(self.linear.weight)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        return self.linear(F.silu(condition)).chunk(self.parts, dim=-1)


class Block(nn.Module):
    """(B, N, D) and a condition (B, D) to (B, N, D); receives its attention ready-made."""

    def __init__(self, width: int, attention: AttentionBlock, feedforward: nn.Module) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = attention
        self.feedforward_norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.feedforward = feedforward
        self.modulation = Modulation(width, 6)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(condition)
        attended = self.attention(modulate(self.attention_norm(tokens), shift, scale))
        tokens = tokens + gate[:, None] * attended
        fed = self.feedforward(modulate(self.feedforward_norm(tokens), mlp_shift, mlp_scale))
        return tokens + mlp_gate[:, None] * fed


class FeedForward(nn.Module):
    """(B, N, D) to (B, N, D): Linear, tanh-GELU, Linear (DiT)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(F.gelu(self.hidden(tokens), approximate="tanh"))


class MixFeedForward(nn.Module, SelfInitialized):
    """(B, N, D) to (B, N, D): SANA's Mix-FFN, which mixes neighbouring tokens.

    Linear to 2 hidden channels, SiLU, 3x3 depth-wise convolution on the token grid, a gated linear
    unit `x SiLU(gate)`, Linear without bias. SANA sets `hidden` to 2.5 D and has no position
    embedding beside it. The depth-wise weights start uniform in +-1/3, torch's default for their
    fan-in of 9.
    """

    def __init__(self, width: int, hidden: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.hidden = nn.Linear(width, 2 * hidden)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.output = nn.Linear(hidden, width, bias=False)

    def initialize(self, generator: torch.Generator) -> None:
        nn.init.uniform_(self.depthwise.weight, -1 / 3, 1 / 3, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed = convolve(self.depthwise, F.silu(self.hidden(tokens)), self.grid, "the Mix-FFN")
        content, gate = mixed.chunk(2, dim=-1)
        return self.output(content * F.silu(gate))


def build_feedforward(
    kind: FeedForwardKind, width: int, hidden: int, grid: tuple[int, int]
) -> FeedForward | MixFeedForward:
    """The feed-forward part that a configuration names, with `hidden` channels inside."""
    return FeedForward(width, hidden) if kind == "mlp" else MixFeedForward(width, hidden, grid)


class BackboneConfig(BaseModel):
    """All that fixes a backbone, besides its seed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    image_shape: tuple[Side, Side, Side] = Field(strict=False)
    """Channels, rows, columns of an image or latent."""
    num_classes: int = Field(ge=1, le=10**6)
    depth: int = Field(ge=1, le=1000)
    width: int = Field(ge=4, le=2**16)
    heads: int = Field(ge=1, le=2**16)
    patch_size: Side
    feedforward: FeedForwardKind
    mlp_ratio: float = Field(gt=0, le=256)
    """Channels inside the feed-forward part divided by the width."""
    positions: Literal["sincos", "none"]
    qk_norm: bool
    value_convolution: ValueConvolutionConfig
    attention: AnyAttention
    variance_channels: int = Field(ge=1, le=2)
    """Predicted channels divided by image channels: 2 where the variance is learned, else 1."""
    sum_precision: SumPrecision = "float32"

    @model_validator(mode="after")
    def _check_tokens(self) -> BackboneConfig:
        rows, columns = self.grid
        if rows * columns > MOST_TOKENS:
            raise ValueError(
                f"images of {self.image_shape[1]}x{self.image_shape[2]} in patches of "
                f"{self.patch_size} are {rows * columns} tokens, more than {MOST_TOKENS}"
            )
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        _, rows, columns = self.image_shape
        return rows // self.patch_size, columns // self.patch_size

    @property
    def attention_shape(self) -> AttentionShape:
        """What each block's attention is told about the network."""
        names = (field.name for field in fields(AttentionShape))
        return AttentionShape(**{name: getattr(self, name) for name in names})


class PatchEmbedding(nn.Module, SelfInitialized):
    """Images (B, C, H, W) to tokens (B, N, D)."""

    def __init__(self, channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels, width, patch_size, stride=patch_size)

    def initialize(self, generator: torch.Generator) -> None:
        nn.init.xavier_uniform_(self.projection.weight.flatten(1), generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        return self.projection(images).flatten(2).transpose(1, 2)


class FinalLayer(nn.Module, SelfInitialized):
    """Tokens (B, N, D) to patches (B, N, p * p * channels), zero at first."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = Modulation(width, 2)
        self.linear = nn.Linear(width, outputs)

    def initialize(self, generator: torch.Generator) -> None:
        nn.init.zeros_(self.linear.weight)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(condition)
        return self.linear(modulate(self.norm(tokens), shift, scale))


class Backbone(nn.Module):
    """Noised images to predictions, given timesteps and labels.

    Args:
        config: sizes, attention variant and image shape.
        seed: of the initial values; modules outside attention get the same ones in every variant.

    Raises:
        UserError: the patch size does not divide the image.
    """

    def __init__(self, config: BackboneConfig, seed: int) -> None:
        super().__init__()
        channels, rows, columns = config.image_shape
        if rows % config.patch_size or columns % config.patch_size:
            raise UserError(
                f"images of {rows}x{columns} cannot be cut into patches of {config.patch_size}"
            )
        self.config = config
        self.checkpoints_activations = False
        """Whether training keeps only what goes into each block and computes the rest again for
        the backward pass: less memory for one more forward pass; the results are the same."""
        self.null_label = config.num_classes
        self.patch_embedding = PatchEmbedding(channels, config.width, config.patch_size)
        positions = position_embedding(config.width, config.grid)
        if config.positions == "none":
            # Adding zeros keeps the residual stream in float32 under autocast, as positions do.
            positions = torch.zeros_like(positions)
        self.register_buffer("positions", positions, persistent=False)
        self.timestep_embedding = TimestepEmbedding(config.width)
        self.label_embedding = LabelEmbedding(config.num_classes, config.width)
        hidden = round(config.width * config.mlp_ratio)
        self.blocks = nn.ModuleList(
            Block(
                config.width,
                build_attention(config.attention, config.attention_shape),
                build_feedforward(config.feedforward, config.width, hidden, config.grid),
            )
            for _ in range(config.depth)
        )
        outputs = config.patch_size**2 * channels * config.variance_channels
        self.final_layer = FinalLayer(config.width, outputs)
        initialize(self, seed)

    def forward(self, images: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """Predict (B, variance_channels * C, H, W) of noised images (B, C, H, W).

        Timesteps (B,) are in 0..1000, labels (B,) in 0..num_classes, the last being the null label.

        Raises:
            UserError: the images have another shape than the network was built for.
        """
        if tuple(images.shape[1:]) != self.config.image_shape:
            raise UserError(
                f"the network was built for images of shape {self.config.image_shape} "
                f"(channels, rows, columns), but got {tuple(images.shape[1:])}"
            )
        tokens = self.patch_embedding(images) + self.positions
        condition = self.timestep_embedding(timesteps) + self.label_embedding(labels)
        for block in self.blocks:
            tokens = self._through(block, tokens, condition)
        return self._unpatchify(self.final_layer(tokens, condition))

    def _through(self, block: nn.Module, tokens: Tensor, condition: Tensor) -> Tensor:
        if not (self.checkpoints_activations and torch.is_grad_enabled()):
            return block(tokens, condition)
        return checkpoint(
            block,
            tokens,
            condition,
            use_reentrant=False,
            # No block draws random numbers, so there is no state of theirs to restore.
            preserve_rng_state=False,
            # Of the second pass, the terms of the loss are known already.
            context_fn=lambda: (nullcontext(), forgetting(block)),
        )

    def _unpatchify(self, patches: Tensor) -> Tensor:
        size = self.config.patch_size
        rows, columns = self.config.grid
        grid = patches.unflatten(1, (rows, columns)).unflatten(-1, (size, size, -1))
        # (B, rows, columns, p, q, C) -> (B, C, rows * p, columns * q)
        return grid.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


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
