"""The diffusion transformer against diffusers', and what all its variants share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor

from models.attention import load_variant, variant_names
from models.attention.base import ValueConvolutionConfig
from models.backbone import Backbone, BackboneConfig
from models.errors import UserError

Build = Callable[..., BackboneConfig]
BuildScrambled = Callable[..., Backbone]


def inputs(batch: int = 3, shape: tuple[int, int, int] = (4, 8, 8)) -> tuple[Tensor, ...]:
    stream = torch.Generator().manual_seed(1)
    times = torch.linspace(0.0, 999.0, batch)
    labels = torch.randint(11, (batch,), generator=stream)
    return torch.randn(batch, *shape, generator=stream), times, labels


def copy_to_diffusers(ours: Backbone) -> DiTTransformer2DModel:
    """Our weights in a network of diffusers."""
    config = ours.config
    theirs = DiTTransformer2DModel(
        num_attention_heads=config.heads,
        attention_head_dim=config.width // config.heads,
        in_channels=config.image_shape[0],
        out_channels=config.image_shape[0] * config.variance_channels,
        num_layers=config.depth,
        sample_size=config.image_shape[1],
        patch_size=config.patch_size,
        num_embeds_ada_norm=config.num_classes,
        norm_eps=1e-6,
    ).eval()
    theirs.pos_embed.proj.load_state_dict(ours.patch_embedding.projection.state_dict())
    for block, copy in zip(ours.blocks, theirs.transformer_blocks, strict=True):
        embedding = copy.norm1.emb
        # The published DiT spaces its 128 frequencies by 1/128, diffusers by 1/127.
        embedding.time_proj.downscale_freq_shift = 0
        timestep = ours.timestep_embedding
        embedding.timestep_embedder.linear_1.load_state_dict(timestep.hidden.state_dict())
        embedding.timestep_embedder.linear_2.load_state_dict(timestep.output.state_dict())
        table = ours.label_embedding.table
        embedding.class_embedder.embedding_table.load_state_dict(table.state_dict())
        copy.norm1.linear.load_state_dict(block.modulation.linear.state_dict())
        weights = block.attention.qkv.weight.chunk(3)
        biases = block.attention.qkv.bias.chunk(3)
        for name, weight, bias in zip(("to_q", "to_k", "to_v"), weights, biases, strict=True):
            getattr(copy.attn1, name).load_state_dict({"weight": weight, "bias": bias})
        copy.attn1.to_out[0].load_state_dict(block.attention.output.state_dict())
        copy.ff.net[0].proj.load_state_dict(block.feedforward.hidden.state_dict())
        copy.ff.net[2].load_state_dict(block.feedforward.output.state_dict())
    theirs.proj_out_1.load_state_dict(ours.final_layer.modulation.linear.state_dict())
    theirs.proj_out_2.load_state_dict(ours.final_layer.linear.state_dict())
    return theirs


@pytest.mark.parametrize("variance_channels", [1, 2])
@pytest.mark.parametrize("patch_size", [1, 2])
def test_softmax_backbone_equals_diffusers_dit_with_the_same_weights(
    scrambled_backbone: BuildScrambled, variance_channels: int, patch_size: int
) -> None:
    ours = scrambled_backbone(patch_size=patch_size, variance_channels=variance_channels)
    theirs = copy_to_diffusers(ours)
    images, times, labels = inputs()
    with torch.no_grad():
        expected = theirs(images, times, labels).sample
        actual = ours(images, times, labels)
    assert actual.shape == (3, 4 * variance_channels, 8, 8)
    assert expected.std() > 0.1
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_every_parameter_of_the_backbone_reaches_diffusers(
    scrambled_backbone: BuildScrambled,
) -> None:
    ours = scrambled_backbone()
    embedders = sum(
        parameter.numel()
        for module in (ours.timestep_embedding, ours.label_embedding)
        for parameter in module.parameters()
    )
    count = sum(parameter.numel() for parameter in ours.parameters())
    theirs = sum(parameter.numel() for parameter in copy_to_diffusers(ours).parameters())
    # diffusers holds the embedders once a block.
    assert theirs == count + (ours.config.depth - 1) * embedders


@pytest.mark.parametrize("feedforward", ["mlp", "mix"])
@pytest.mark.parametrize("positions", ["sincos", "none"])
@pytest.mark.parametrize("name", variant_names())
def test_every_variant_trains_in_half_precision_with_every_backbone_option(
    scrambled_backbone: BuildScrambled, name: str, feedforward: str, positions: str
) -> None:
    backbone = scrambled_backbone(
        image_shape=(1, 6, 10),
        attention=load_variant(name).config(),
        feedforward=feedforward,
        positions=positions,
        qk_norm=True,
        value_convolution=ValueConvolutionConfig(size=3, initialization="identity"),
    ).train()
    residual_streams = []
    for block in backbone.blocks:
        block.register_forward_hook(lambda _, __, output: residual_streams.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        prediction = backbone(*inputs(shape=(1, 6, 10)))
    prediction.float().square().mean().backward()
    assert prediction.shape == (3, 2, 6, 10)
    assert residual_streams == [torch.float32] * 2
    for parameter_name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", variant_names())
def test_untrained_network_predicts_zero(backbone_config: Build, name: str) -> None:
    backbone = Backbone(backbone_config(attention=load_variant(name).config()), seed=0)
    assert not backbone(*inputs()).any()


def test_without_positions_and_convolution_moving_patches_moves_the_prediction(
    scrambled_backbone: BuildScrambled,
) -> None:
    images, times, labels = inputs()
    moved = images.roll((2, 4), dims=(2, 3))
    free = scrambled_backbone(positions="none")
    torch.testing.assert_close(
        free(moved, times, labels),
        free(images, times, labels).roll((2, 4), dims=(2, 3)),
        rtol=1e-4,
        atol=1e-5,
    )
    bound = scrambled_backbone(positions="sincos")
    difference = bound(moved, times, labels) - bound(images, times, labels).roll((2, 4), (2, 3))
    assert difference.abs().max() > 0.01


def test_null_label_is_the_one_after_the_classes(scrambled_backbone: BuildScrambled) -> None:
    backbone = scrambled_backbone(num_classes=7)
    assert backbone.null_label == 7
    assert backbone.label_embedding.table.num_embeddings == 8


def test_patches_that_do_not_tile_the_image_are_refused(backbone_config: Build) -> None:
    with pytest.raises(UserError, match="8x8 cannot be cut into patches of 3"):
        Backbone(backbone_config(patch_size=3), seed=0)


def test_images_of_another_shape_are_refused_with_both_shapes(
    scrambled_backbone: BuildScrambled,
) -> None:
    with pytest.raises(UserError, match=r"\(4, 8, 8\).*\(4, 16, 16\)"):
        scrambled_backbone()(*inputs(shape=(4, 16, 16)))
