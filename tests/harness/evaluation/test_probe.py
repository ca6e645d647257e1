"""The probe against a forward pass written out by hand, and its memory at 4,096 tokens."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from PIL import Image
from torch import Tensor

from harness.data.images import LabelledImages
from harness.evaluation.probe import (
    DEAD_OPTIONS,
    EFFECTIVE_RANK,
    EMPTY_ROWS,
    ENTROPY,
    NEGATIVE_SHARE,
    ROUTING_ENTROPY,
    SHARE,
    SIMILARITY,
    ProbeImages,
    ProbeRow,
    choose_probe_images,
    layers,
    mean,
    of_sign,
    probe_attention,
    probe_csv,
    probe_metrics,
    probe_png,
    select,
    timesteps,
)
from harness.machine.environment import ROOT
from harness.vocabulary.names import check_name
from models.attention import load_variant
from models.attention.base import ValueConvolutionConfig
from models.backbone import Backbone, BackboneConfig, modulate
from models.objectives import build_objective, objective_config
from models.objectives.base import TrainingObjective

MANY_TOKENS = ROOT / "tests/support/processes/probe_many_tokens.py"
VARIANTS = {
    "softmax": {},
    "sana": {"head_dim": 8},
    "dydila": {"head_dim": 8, "lambda_init": 0.3, "lambda_spread": 0.2},
    "dydila_rms": {"name": "dydila", "head_dim": 8, "lambda_init": 0.9, "normalizer": "rms"},
}


def network(variant: str, patch_size: int = 2) -> Backbone:
    fields: dict[str, Any] = dict(VARIANTS[variant])
    attention = load_variant(fields.pop("name", variant)).config(**fields)
    backbone = Backbone(
        BackboneConfig(
            image_shape=(1, 8, 6),
            num_classes=10,
            depth=2,
            width=16,
            heads=2,
            patch_size=patch_size,
            feedforward="mlp",
            mlp_ratio=2.0,
            positions="sincos",
            qk_norm=False,
            value_convolution=ValueConvolutionConfig(size=3, initialization="random"),
            attention=attention,
            variance_channels=1,
        ),
        seed=0,
    )
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=stream))
    return backbone.eval()


def objective(name: str = "flow") -> TrainingObjective:
    return build_objective(objective_config(name)(name=name))


@pytest.fixture(scope="module")
def shown() -> ProbeImages:
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 1, 8, 6), generator=stream, dtype=torch.uint8)
    names = tuple(str(label) for label in range(10))
    return choose_probe_images(LabelledImages(images, torch.arange(20) % 10, names), 3)


def attention_inputs(
    backbone: Backbone, images: Tensor, timesteps: Tensor, labels: Tensor
) -> list[Tensor]:
    """What each layer's attention receives, without any hook."""
    tokens = backbone.patch_embedding(images) + backbone.positions
    condition = backbone.timestep_embedding(timesteps) + backbone.label_embedding(labels)
    received = []
    for block in backbone.blocks:
        shift, scale, *_ = block.modulation(condition)
        received.append(modulate(block.attention_norm(tokens), shift, scale))
        tokens = block(tokens, condition)
    return received


def by_hand(weights: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """One image's figures, in loops."""
    entropies, outputs = [], []
    rows = []
    for row in weights:
        outputs.append(sum(entry * value for entry, value in zip(row, values, strict=True)))
        rows.append(row / sum(abs(entry) for entry in row))
        entropies.append(scipy.stats.entropy(np.abs(row)) / math.log(len(row)))
    singular = np.linalg.svd(np.array(rows), compute_uv=False)
    cosines = [
        one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        for first, one in enumerate(outputs)
        for second, other in enumerate(outputs)
        if first != second
    ]
    return {
        ENTROPY: float(np.mean(entropies)),
        EFFECTIVE_RANK: math.exp(scipy.stats.entropy(singular)),
        SIMILARITY: float(np.mean(cosines)),
        EMPTY_ROWS: 0.0,
        **signs_by_hand(np.array(rows)),
    }


def signs_by_hand(rows: np.ndarray) -> dict[str, float]:
    """Figures of positive and negative weights apart, where there are negative ones."""
    if rows.min() >= 0:
        return {}
    found = {NEGATIVE_SHARE: float(np.mean([-row[row < 0].sum() for row in rows]))}
    for sign, factor in (("positive", 1), ("negative", -1)):
        kept = [np.where(factor * row > 0, abs(row), 0.0) for row in rows]
        kept = [row / row.sum() if row.any() else row for row in kept]
        found[of_sign(ENTROPY, sign)] = float(
            np.mean([scipy.stats.entropy(row) / math.log(len(row)) for row in kept if row.any()])
        )
        singular = np.linalg.svd(np.array(kept), compute_uv=False)
        found[of_sign(EFFECTIVE_RANK, sign)] = math.exp(scipy.stats.entropy(singular))
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_figures_equal_a_forward_pass_by_hand(variant: str, shown: ProbeImages) -> None:
    backbone = network(variant)
    rows = [row for row in probe_attention(backbone, objective(), shown, 2) if row.router is None]
    expected = {}
    for time in objective().stratified_times(2):
        noised = torch.lerp(shown.images, shown.noise, time)
        told = (1000 * time).expand(3)
        with torch.no_grad():
            received = attention_inputs(backbone, noised, told, shown.labels)
            for layer, tokens in enumerate(received):
                attention = backbone.blocks[layer].attention
                values = attention.qkv(tokens)[..., 32:].unflatten(-1, (2, 8))
                for head in range(2):
                    weights = attention.attention_weights(tokens, head)
                    figures = [
                        by_hand(
                            weights[image].double().numpy(), values[image, :, head].double().numpy()
                        )
                        for image in range(3)
                    ]
                    for metric in {metric for one in figures for metric in one}:
                        none = {NEGATIVE_SHARE: 0.0}
                        counted = [{**none, **one} for one in figures]
                        average = float(np.mean([one[metric] for one in counted if metric in one]))
                        expected[layer, head, round(told[0].item(), 3), metric] = average
    found = {(row.layer, row.head, round(row.timestep, 3), row.metric): row.value for row in rows}
    assert found.keys() == expected.keys()
    signed = 5 * sum(row.metric == NEGATIVE_SHARE for row in rows)
    assert bool(signed) == variant.startswith("dydila")
    assert len(rows) == len(found) == 2 * 2 * 2 * 4 + signed
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key


def test_shares_are_counts_of_what_routers_choose(shown: ProbeImages) -> None:
    backbone = network("dydila")
    rows = probe_attention(backbone, objective(), shown, 1)
    (time,) = objective().stratified_times(1)
    noised = torch.lerp(shown.images, shown.noise, time)
    with torch.no_grad():
        tokens = attention_inputs(backbone, noised, (1000 * time).expand(3), shown.labels)[1]
        attention = backbone.blocks[1].attention
        choices = (tokens @ attention.redundant_key.projectors.router.weight[0]).argmax(dim=-1)
    counts = torch.bincount(choices.flatten(), minlength=3) / choices.numel()
    mine = [row for row in rows if (row.layer, row.router) == (1, "redundant_key.projectors")]
    shares = {row.option: row.value for row in mine if row.metric == SHARE}
    assert shares == pytest.approx(dict(enumerate(counts.tolist())))
    (entropy,) = select(mine, ROUTING_ENTROPY)
    assert entropy == pytest.approx(scipy.stats.entropy(counts.numpy(), base=3))
    (dead,) = select(mine, DEAD_OPTIONS)
    assert dead == (counts == 0).sum()
    assert {row.router for row in rows if row.router} == {
        "query_kernel",
        "key_kernel",
        *(
            f"redundant_{side}.{part}"
            for side in ("query", "key")
            for part in ("projectors", "kernel", "difference")
        ),
    }


def test_probing_leaves_the_network_as_it_was(shown: ProbeImages) -> None:
    backbone = network("dydila")
    inputs = (shown.images, torch.full((3,), 500.0), shown.labels)
    before, state = backbone(*inputs), {k: v.clone() for k, v in backbone.state_dict().items()}
    first = probe_attention(backbone, objective(), shown, 2)
    assert torch.equal(backbone(*inputs), before)
    assert all(torch.equal(state[key], value) for key, value in backbone.state_dict().items())
    assert not any(module._forward_pre_hooks for module in backbone.modules())
    assert probe_attention(backbone, objective(), shown, 2) == first


def test_few_images_at_a_time_give_the_same_figures(
    shown: ProbeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = network("dydila")
    together = probe_attention(backbone, objective(), shown, 1)
    monkeypatch.setattr("harness.evaluation.probe._WEIGHTS_AT_ONCE", 2 * 12**2)
    apart = probe_attention(backbone, objective(), shown, 1)
    assert [astuple(row)[:3] for row in apart] == [astuple(row)[:3] for row in together]
    for one, other in zip(apart, together, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-4)


def test_every_objective_is_probed_at_its_own_timesteps(shown: ProbeImages) -> None:
    backbone = network("sana")
    flow = timesteps(probe_attention(backbone, objective("flow"), shown, 4))
    normal = scipy.stats.norm.ppf([0.125, 0.375, 0.625, 0.875])
    assert flow == pytest.approx(1000 * scipy.special.expit(normal), rel=1e-5)
    ddpm = timesteps(probe_attention(backbone, objective("ddpm"), shown, 4))
    assert ddpm == [125.0, 375.0, 625.0, 875.0]


def test_images_and_noise_are_the_same_every_time(shown: ProbeImages) -> None:
    pixels = torch.arange(30, dtype=torch.uint8).view(30, 1, 1, 1)
    held_out = LabelledImages(pixels, torch.arange(30), ("a",) * 30)
    eight, four = choose_probe_images(held_out, 8), choose_probe_images(held_out, 4)
    assert torch.equal(eight.images[:4], four.images)
    assert torch.equal(eight.noise[:4], four.noise)
    assert len(set(eight.labels.tolist())) == 8
    assert torch.equal(eight.images.flatten(), eight.labels / 127.5 - 1)


def test_a_single_token_or_no_image_is_nothing_to_probe(shown: ProbeImages) -> None:
    none = ProbeImages(shown.images[:0], shown.labels[:0], shown.noise[:0])
    assert probe_attention(network("sana"), objective(), none, 4) == ()
    square = ProbeImages(shown.images[..., :2, :2], shown.labels, shown.noise[..., :2, :2])
    config = network("sana").config
    single = Backbone(config.model_copy(update={"image_shape": (1, 2, 2)}), seed=0)
    assert probe_attention(single, objective(), square, 4) == ()


def test_the_table_holds_every_row_and_its_means_pass_over_nan() -> None:
    rows = [
        ProbeRow(0, 125.0, ENTROPY, 0.5, head=0),
        ProbeRow(0, 125.0, ENTROPY, 0.7, head=1),
        ProbeRow(1, 125.0, ENTROPY, math.nan, head=0),
        ProbeRow(1, 375.0, ENTROPY, 0.1, head=0),
        ProbeRow(1, 375.0, SHARE, 1 / 3, router="query_kernel", option=2),
    ]
    read = list(csv.DictReader(io.StringIO(probe_csv(rows))))
    assert [float(row["value"]) for row in read][-1] == 1 / 3
    assert read[4] == {
        "layer": "1",
        "timestep": "375.0",
        "metric": SHARE,
        "value": repr(1 / 3),
        "head": "",
        "router": "query_kernel",
        "option": "2",
    }
    assert mean(select(rows, ENTROPY)) == pytest.approx(1.3 / 3)
    assert select(rows, ENTROPY, layer=1) == [0.1]
    assert select(rows, ENTROPY, timestep=125.0) == [0.5, 0.7]
    assert math.isnan(mean(select(rows, ENTROPY, layer=1, timestep=125.0)))
    assert (layers(rows), timesteps(rows)) == ([0, 1], [125.0, 375.0])


@pytest.mark.parametrize("count", [1, 4])
def test_the_figure_is_drawn_of_one_layer_or_many(count: int) -> None:
    rows = [
        ProbeRow(layer, time, metric, 0.1 * layer + time / 1000, head=head)
        for layer in range(count)
        for time in (100.0, 900.0)
        for metric in (ENTROPY, EFFECTIVE_RANK, SIMILARITY)
        for head in range(2)
    ]
    pixels = np.asarray(Image.open(io.BytesIO(probe_png(rows))).convert("RGB"))
    assert pixels.shape[1] > 1000
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3)[::7]}
    assert len(colours) > 20


def test_means_are_logged_over_all_and_of_each_layer_and_timestep() -> None:
    rows = [
        ProbeRow(layer, timestep, metric, value, head=head)
        for metric in (ENTROPY, EFFECTIVE_RANK, SIMILARITY)
        for layer, timestep, head, value in (
            (0, 240.4, 0, 0.1),
            (0, 240.4, 1, 0.3),
            (0, 759.6, 0, 0.5),
            (3, 240.4, 0, math.nan),
            (3, 759.6, 0, 0.7),
        )
    ]
    rows.append(ProbeRow(0, 240.4, EMPTY_ROWS, 0.0, head=0))
    rows.append(ProbeRow(3, 759.6, ROUTING_ENTROPY, 0.25, router="query_kernel"))
    metrics = probe_metrics(rows)
    rounded = {name: round(value, 9) for name, value in metrics.items()}
    assert rounded == {
        **{
            f"{metric}{suffix}": value
            for metric in ("attention_entropy", "attention_effective_rank", "token_similarity")
            for suffix, value in {
                "": 0.4,
                "/layer_00": 0.3,
                "/layer_03": 0.7,
                "/timestep_0240": 0.2,
                "/timestep_0760": 0.6,
            }.items()
        },
        "routing_entropy": 0.25,
        "routing_entropy/layer_03": 0.25,
        "routing_entropy/timestep_0760": 0.25,
    }
    for name in metrics:
        check_name(name)


def test_nothing_is_logged_of_nothing() -> None:
    assert probe_metrics([]) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "heads"), [("sana", 6), ("dydila", 6), ("softmax", 1)])
def test_4096_tokens_fit_in_two_gigabytes(
    variant: str, heads: int, subprocess_environment: dict[str, Any]
) -> None:
    done = subprocess.run(
        [sys.executable, str(MANY_TOKENS), variant],
        capture_output=True,
        text=True,
        env=subprocess_environment,
        check=True,
    )
    measured = json.loads(done.stdout)
    assert measured["tokens"] == 4096
    assert measured["heads_measured"] == heads
    assert measured["finite"]
    assert measured["peak_bytes"] < 2e9
