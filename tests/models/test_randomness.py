"""Initial values: the same in every variant outside attention, and those of DiT."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.attention import load_variant, variant_names
from models.attention.base import ValueConvolutionConfig
from models.backbone import Backbone, BackboneConfig

Build = Callable[..., BackboneConfig]

CONFIGURATIONS = [(name, {}) for name in variant_names()] + [
    ("dydila", {"differential": "off"}),
    ("dydila", {"projection": "static", "kernel": "relu"}),
    ("dydila", {"kernel_sharing_roles": "shared", "kernel_per_head": True}),
]


def parameters(config: BackboneConfig, seed: int = 0) -> dict[str, Tensor]:
    return dict(Backbone(config, seed).named_parameters())


def outside_attention(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in found.items() if ".attention." not in name}


@pytest.mark.parametrize(("name", "fields"), CONFIGURATIONS, ids=str)
def test_everything_outside_attention_starts_equal_in_every_variant(
    backbone_config: Build, name: str, fields: dict[str, object]
) -> None:
    attention = load_variant(name).config(**fields)
    found = outside_attention(parameters(backbone_config(attention=attention)))
    reference = outside_attention(parameters(backbone_config()))
    assert found.keys() == reference.keys()
    assert all(torch.equal(found[name], reference[name]) for name in reference)


def test_parts_that_ablations_of_dydila_share_start_equal(backbone_config: Build) -> None:
    dydila = load_variant("dydila").config
    full = parameters(backbone_config(attention=dydila()))
    for fields in ({"differential": "off"}, {"kernel": "relu"}, {"differential": "static"}):
        ablated = parameters(backbone_config(attention=dydila(**fields)))
        common = full.keys() & ablated.keys()
        assert any("attention.qkv" in name for name in common)
        assert all(torch.equal(full[name], ablated[name]) for name in common)


@pytest.mark.parametrize("name", variant_names())
def test_another_seed_gives_other_values_wherever_they_are_random(
    backbone_config: Build, name: str
) -> None:
    config = backbone_config(attention=load_variant(name).config(), feedforward="mix")
    first, second = parameters(config, seed=0), parameters(config, seed=1)
    assert all(torch.equal(value, parameters(config)[name]) for name, value in first.items())
    for parameter, value in first.items():
        constant = bool((value == value.flatten()[0]).all())
        assert torch.equal(value, second[parameter]) == constant, parameter


def test_no_two_layers_start_equal(backbone_config: Build) -> None:
    found = parameters(backbone_config(attention=load_variant("dydila").config()))
    random = [value.flatten()[:8] for value in found.values() if value.std() > 1e-6]
    stacked = torch.stack([value for value in random if len(value) == 8])
    assert len(stacked.unique(dim=0)) == len(stacked)


def test_zeros_are_where_dit_has_them_and_nowhere_else(backbone_config: Build) -> None:
    found = parameters(backbone_config())
    zero = {name for name, value in found.items() if not value.any()}
    assert zero == {
        name
        for name in found
        if name.endswith("bias") or "modulation" in name or name == "final_layer.linear.weight"
    }


@pytest.mark.parametrize(
    ("name", "std"),
    [
        # Xavier-uniform has the variance 2 / (fan in + fan out).
        ("patch_embedding.projection.weight", math.sqrt(2 / (4 * 4 + 256))),
        ("timestep_embedding.hidden.weight", 0.02),
        ("timestep_embedding.output.weight", 0.02),
        ("label_embedding.table.weight", 0.02),
        ("blocks.0.attention.qkv.weight", math.sqrt(2 / (256 + 3 * 256))),
        ("blocks.0.attention.output.weight", math.sqrt(2 / (256 + 256))),
        ("blocks.1.feedforward.hidden.weight", math.sqrt(2 / (256 + 4 * 256))),
        ("blocks.1.feedforward.output.weight", math.sqrt(2 / (256 + 4 * 256))),
    ],
)
def test_spread_of_initial_values_is_that_of_dit(
    backbone_config: Build, name: str, std: float
) -> None:
    value = parameters(backbone_config(width=256))[name]
    assert value.std().item() == pytest.approx(std, rel=0.04)
    assert abs(value.mean().item()) < 4 * std / math.sqrt(value.numel())
    if std != 0.02:
        assert value.abs().max().item() <= math.sqrt(3) * std * 1.001


@pytest.mark.parametrize(
    ("initialization", "expected"),
    [("identity", "one in the middle"), ("zero", "all zero"), ("random", "spread")],
)
def test_convolution_of_the_values_starts_as_asked(
    backbone_config: Build, initialization: str, expected: str
) -> None:
    convolution = ValueConvolutionConfig(size=5, initialization=initialization)
    found = parameters(backbone_config(width=256, value_convolution=convolution))
    weight = found["blocks.0.attention.value_convolution.convolution.weight"]
    assert not found["blocks.0.attention.value_convolution.convolution.bias"].any()
    if expected == "spread":
        # Uniform in +-1/5, torch's default for a fan-in of 25.
        assert weight.std().item() == pytest.approx(0.2 / math.sqrt(3), rel=0.04)
        return
    identity = torch.zeros(256, 1, 5, 5)
    identity[:, :, 2, 2] = float(expected == "one in the middle")
    assert torch.equal(weight, identity)
