"""The published DiT layout, against a network written in that layout here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness.training.published_dit import dit_network, dit_state
from models.attention.base import ValueConvolutionConfig
from models.attention.sana import Config as SanaConfig
from models.backbone import Backbone, BackboneConfig
from models.errors import UserError

Build = Callable[..., BackboneConfig]


class Attn(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        qkv = self.qkv(x).reshape(batch, count, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, count, width))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(nn.GELU(approximate="tanh")(self.fc1(x)))


class DiTBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attn(width, heads)
        self.mlp = Mlp(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        parts = self.adaLN_modulation(c)[:, None].chunk(6, dim=-1)
        x = x + parts[2] * self.attn(self.norm(x) * (1 + parts[1]) + parts[0])
        return x + parts[5] * self.mlp(self.norm(x) * (1 + parts[4]) + parts[3])


class Embedder(nn.Module):
    """Has one child of the name that the layout wants."""

    def __init__(self, name: str, child: nn.Module) -> None:
        super().__init__()
        self.add_module(name, child)


class FinalLayer(nn.Module):
    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=-1)
        return self.linear(self.norm_final(x) * (1 + scale) + shift)


def sine_cosine_positions(width: int, size: int) -> np.ndarray:
    """(1, size * size, width); the column's channels before the row's."""
    frequencies = 1.0 / 10000 ** (np.arange(width // 4, dtype=np.float64) / (width / 4.0))
    table = np.empty((size * size, width))
    for row in range(size):
        for column in range(size):
            waves = [f(p * frequencies) for p in (column, row) for f in (np.sin, np.cos)]
            table[row * size + column] = np.concatenate(waves)
    return table[None].astype(np.float32)


class PublishedDiT(nn.Module):
    """The module tree of the published code: square images, learned variance."""

    def __init__(
        self, size: int = 8, patch: int = 2, width: int = 32, depth: int = 2, heads: int = 2
    ) -> None:
        super().__init__()
        self.size, self.patch = size, patch
        tokens = (size // patch) ** 2
        self.x_embedder = Embedder("proj", nn.Conv2d(4, width, patch, stride=patch))
        self.t_embedder = Embedder(
            "mlp", nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        )
        self.y_embedder = Embedder("embedding_table", nn.Embedding(11, width))
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, width), requires_grad=False)
        self.blocks = nn.ModuleList(DiTBlock(width, heads) for _ in range(depth))
        self.final_layer = FinalLayer(width, patch * patch * 8)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
            self.pos_embed.copy_(torch.from_numpy(sine_cosine_positions(width, size // patch)))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        frequencies = torch.exp(-np.log(10000) * torch.arange(128) / 128)
        angles = t[:, None] * frequencies[None]
        time = self.t_embedder.mlp(torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1))
        condition = time + self.y_embedder.embedding_table(y)
        x = self.x_embedder.proj(x).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x = block(x, condition)
        x = self.final_layer(x, condition)
        side, p = self.size // self.patch, self.patch
        image = torch.einsum("nhwpqc->nchpwq", x.reshape(-1, side, side, p, p, 8))
        return image.reshape(-1, 8, self.size, self.size)


def test_the_network_predicts_what_the_published_one_does() -> None:
    theirs = PublishedDiT()
    ours = dit_network(theirs.state_dict(), heads=2)
    stream = torch.Generator().manual_seed(1)
    images = torch.randn(3, 4, 8, 8, generator=stream)
    times, labels = torch.tensor([0, 500, 999]), torch.tensor([0, 3, 10])
    expected = theirs(images, times, labels)
    torch.testing.assert_close(ours(images, times, labels), expected, rtol=1e-5, atol=1e-5)


def test_round_trip_is_exact() -> None:
    theirs = PublishedDiT().state_dict()
    back = dit_state(dit_network(theirs, heads=2))
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


def test_written_state_loads_into_the_published_network(backbone_config: Build) -> None:
    ours, theirs = Backbone(backbone_config(), seed=0), PublishedDiT()
    theirs.load_state_dict(dit_state(ours), strict=True)
    again = dit_network(theirs.state_dict(), heads=2)
    assert again.config == ours.config
    assert all(
        torch.equal(value, again.state_dict()[name]) for name, value in ours.state_dict().items()
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_read(dtype: torch.dtype) -> None:
    theirs = {name: value.to(dtype) for name, value in PublishedDiT().state_dict().items()}
    ours = dit_network(theirs, heads=2).state_dict()
    assert torch.equal(
        ours["blocks.1.attention.qkv.weight"], theirs["blocks.1.attn.qkv.weight"].float()
    )


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_of_eight_bits_are_read(dtype: torch.dtype) -> None:
    theirs = {name: value.to(dtype) for name, value in PublishedDiT().state_dict().items()}
    theirs["pos_embed"] = PublishedDiT().state_dict()["pos_embed"]
    ours = dit_network(theirs, heads=2).state_dict()
    assert torch.equal(
        ours["blocks.1.attention.qkv.weight"], theirs["blocks.1.attn.qkv.weight"].float()
    )


def test_other_positions_are_refused() -> None:
    published = PublishedDiT().state_dict()
    for dtype in (torch.float32, torch.bfloat16):
        reversed_order = published["pos_embed"].flip(1).to(dtype)
        with pytest.raises(UserError, match="sine-cosine embedding of a grid of 4x4"):
            dit_network({**published, "pos_embed": reversed_order}, heads=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": SanaConfig()}, "attention.name is sana here and softmax in DiT"),
        (
            {"value_convolution": ValueConvolutionConfig(size=5, initialization="zero")},
            "value_convolution.size is 5 here and 0 in DiT",
        ),
        ({"feedforward": "mix"}, "model.feedforward is mix here and mlp in DiT"),
        ({"positions": "none"}, "model.positions is none here and sincos in DiT"),
        ({"qk_norm": True}, "model.qk_norm is True here and False in DiT"),
    ],
    ids=str,
)
def test_another_variant_is_not_written(
    backbone_config: Build, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        dit_state(Backbone(backbone_config(**changes), seed=0))
