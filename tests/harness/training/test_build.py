from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.config.load import load_ablation
from harness.config.schema import TrialConfig
from harness.machine.environment import EXPERIMENTS
from harness.training.build import backbone_config, build_backbone, match_parameters
from models.attention import load_variant, variant_names
from models.attention.base import ValueConvolutionConfig
from models.backbone import Backbone, BackboneConfig
from models.errors import UserError

SHAPE = (1, 8, 8)


MATCHED = "model.match_parameters_of=dydila"


Build = Callable[..., TrialConfig]


def parameters(config: TrialConfig) -> int:
    network = build_backbone(config, SHAPE, num_classes=10)
    return sum(parameter.numel() for parameter in network.parameters())


def with_attention(name: str, **changes: object) -> BackboneConfig:
    plain = BackboneConfig(
        image_shape=SHAPE,
        num_classes=10,
        depth=3,
        width=64,
        heads=2,
        patch_size=2,
        feedforward="mlp",
        mlp_ratio=4.0,
        positions="sincos",
        qk_norm=False,
        value_convolution=ValueConvolutionConfig(size=5, initialization="identity"),
        attention=load_variant(name).config(),
        variance_channels=1,
    )
    return plain.model_copy(update=changes)


def count(config: BackboneConfig) -> int:
    return sum(parameter.numel() for parameter in Backbone(config, seed=0).parameters())


@pytest.mark.parametrize("feedforward", ["mlp", "mix"])
@pytest.mark.parametrize("name", variant_names())
def test_every_variant_gets_as_many_parameters_as_the_largest(name: str, feedforward: str) -> None:
    sizes = {v: count(with_attention(v, feedforward=feedforward)) for v in variant_names()}
    largest = max(sizes, key=lambda variant: sizes[variant])
    config = match_parameters(with_attention(name, feedforward=feedforward), largest)
    assert count(config) == pytest.approx(sizes[largest], rel=0.01)
    assert (config.mlp_ratio > 4) == (sizes[name] < sizes[largest])


def test_only_the_feed_forward_part_grows() -> None:
    plain = with_attention("sana")
    widened = match_parameters(plain, "dydila")
    assert widened.model_copy(update={"mlp_ratio": 4.0}) == plain


def test_the_field_of_the_configuration_matches_the_networks(trial_config: Build) -> None:
    target = parameters(trial_config("dydila"))
    assert parameters(trial_config("sana")) < 0.9 * target
    assert parameters(trial_config("sana", MATCHED)) == pytest.approx(target, rel=0.01)
    assert parameters(trial_config("dydila", MATCHED)) == target


def test_without_the_field_the_width_is_that_of_the_ratio(trial_config: Build) -> None:
    for variant in ("softmax", "sana", "dydila"):
        config = trial_config(variant, "model.mlp_ratio=2.5")
        assert backbone_config(config, SHAPE, 10).mlp_ratio == 2.5
        hidden = build_backbone(config, SHAPE, 10).blocks[0].feedforward.hidden
        assert hidden.out_features == 160


def test_a_reference_smaller_than_the_network_is_refused_with_both_numbers() -> None:
    config = with_attention("dydila")
    own, wanted = count(config), count(with_attention("sana"))
    with pytest.raises(UserError, match=f"has {wanted:,} parameters.*it has {own:,} already"):
        match_parameters(config, "sana")


def test_a_step_too_coarse_to_match_is_refused_with_both_numbers() -> None:
    """Focused attention has 8 parameters a block more than softmax here, and one channel more
    inside the feed-forward part has 17."""
    changes = {
        "depth": 80,
        "width": 8,
        "heads": 1,
        "mlp_ratio": 1 / 8,
        "value_convolution": ValueConvolutionConfig(size=0, initialization="zero"),
    }
    own = count(with_attention("softmax", **changes))
    wanted = count(with_attention("focused", **changes))
    assert wanted - own == 80 * 8
    with pytest.raises(UserError, match=f"has {wanted:,} parameters.*gives is {own:,}, more than"):
        match_parameters(with_attention("softmax", **changes), "focused")


def test_the_matched_ablation_compares_networks_of_one_size() -> None:
    ablation = load_ablation(
        "matched_baselines", scale="digits", seeds=1, overrides=[], experiments_dir=EXPERIMENTS
    )
    sizes = {trial.variant: parameters(trial.config) for trial in ablation.trials}
    assert all(size == pytest.approx(sizes["dydila"], rel=0.01) for size in sizes.values())
