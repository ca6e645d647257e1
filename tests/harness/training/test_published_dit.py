"""Files in the published layout; that the layout itself is right is tested in tests/models."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.training.export import export_model, load_exported
from harness.training.published_dit import SUFFIXES, convert, dit_state, read_published
from models.attention.base import ValueConvolutionConfig
from models.attention.sana import Config as SanaConfig
from models.attention.softmax import Config as SoftmaxConfig
from models.backbone import Backbone, BackboneConfig
from models.errors import UserError


def dit(**changes: Any) -> Backbone:
    """Random weights, those that start at zero included. The size is that called tiny."""
    plain: dict[str, Any] = {
        "image_shape": (4, 8, 8),
        "num_classes": 10,
        "depth": 4,
        "width": 64,
        "heads": 2,
        "patch_size": 2,
        "feedforward": "mlp",
        "mlp_ratio": 4.0,
        "positions": "sincos",
        "qk_norm": False,
        "value_convolution": ValueConvolutionConfig(size=0, initialization="zero"),
        "attention": SoftmaxConfig(),
        "variance_channels": 2,
    }
    backbone = Backbone(BackboneConfig(**{**plain, **changes}), seed=0)
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=stream))
    return backbone.eval()


def predicted(backbone: Backbone) -> Tensor:
    images = torch.randn(
        2, *backbone.config.image_shape, generator=torch.Generator().manual_seed(7)
    )
    with torch.no_grad():
        return backbone(images, torch.tensor([3.0, 800.0]), torch.tensor([0, 10]))


def write(state: Any, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    loaded: dict[str, Tensor] = torch.load(path, weights_only=True)
    return loaded


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_there_and_back_again_is_exact(tmp_path: Path, suffix: str) -> None:
    published = dit_state(dit())
    convert(write(published, tmp_path / f"dit{suffix}"), tmp_path / "ours", None)
    convert(tmp_path / "ours", tmp_path / f"back{suffix}", None)
    back = read(tmp_path / f"back{suffix}")
    assert back.keys() == published.keys()
    assert all(torch.equal(back[name], value) for name, value in published.items())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"variance_channels": 1, "image_shape": (3, 12, 12), "patch_size": 4},
        {"num_classes": 1000, "mlp_ratio": 2.0, "patch_size": 1},
    ],
    ids=str,
)
def test_the_files_shapes_describe_the_network(tmp_path: Path, changes: dict[str, Any]) -> None:
    ours = dit(**changes)
    convert(write(dit_state(ours), tmp_path / "dit.pt"), tmp_path / "ours", None)
    loaded = load_exported(tmp_path / "ours")
    assert loaded.config == ours.config
    assert torch.equal(predicted(loaded), predicted(ours))


def test_heads_are_named_where_the_size_is_none_of_dits(tmp_path: Path) -> None:
    ours = dit(depth=3, heads=4)
    path = write(dit_state(ours), tmp_path / "dit.pt")
    with pytest.raises(UserError, match="width of 64 with 3 blocks .* name them with --heads"):
        convert(path, tmp_path / "ours", None)
    with pytest.raises(UserError, match="5 heads do not divide the width 64"):
        convert(path, tmp_path / "ours", 5)
    with pytest.raises(UserError, match="--heads is 0"):
        convert(path, tmp_path / "ours", 0)
    assert not (tmp_path / "ours").exists()
    convert(path, tmp_path / "ours", 4)
    assert torch.equal(predicted(load_exported(tmp_path / "ours")), predicted(ours))


def test_a_training_checkpoint_gives_its_averaged_weights(tmp_path: Path) -> None:
    ours = dit()
    other = {name: torch.zeros_like(value) for name, value in dit_state(ours).items()}
    whole = {
        "model": other,
        "ema": dit_state(ours),
        "opt": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "args": argparse.Namespace(model="DiT-S/2"),
    }
    loaded, entry = read_published(write(whole, tmp_path / "0400000.pt"), None)
    assert entry == "ema"
    assert torch.equal(predicted(loaded), predicted(ours))


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.module.", "model."]
)
def test_names_that_wrappers_have_prefixed_are_understood(tmp_path: Path, prefix: str) -> None:
    ours = dit()
    state = {prefix + name: value for name, value in dit_state(ours).items()}
    loaded, entry = read_published(write(state, tmp_path / "dit.pt"), None)
    assert entry == ""
    assert torch.equal(predicted(loaded), predicted(ours))


@pytest.mark.parametrize("keys", [("state_dict",), ("model",), ("model", "state_dict")], ids=str)
def test_weights_are_found_inside_of_what_training_scripts_write(
    tmp_path: Path, keys: tuple[str, ...]
) -> None:
    ours = dit()
    state: Any = dit_state(ours)
    for key in keys:
        state = {key: state, "epoch": 3}
    loaded, entry = read_published(write(state, tmp_path / "dit.ckpt"), None)
    assert entry == ".".join(reversed(keys))
    assert torch.equal(predicted(loaded), predicted(ours))


def test_what_was_read_is_told(tmp_path: Path) -> None:
    state = dit_state(dit(num_classes=1000))
    facts = "1000 classes, images of 4x8x8 in patches of 2, 4 blocks of width 64, 2 heads"
    for name, content, weights in [
        ("plain", state, "; weights: the whole file"),
        ("ema", {"model": state, "ema": state}, "; weights: entry ema of the file"),
        (
            "nested",
            {"model": {"state_dict": state}},
            "; weights: entry model.state_dict of the file",
        ),
    ]:
        source = write(content, tmp_path / f"{name}.pt")
        assert convert(source, tmp_path / name, None) == facts + weights
    assert convert(tmp_path / "plain", tmp_path / "back.pt", None) == facts


def with_number(name: str, number: float) -> Callable[[dict[str, Tensor]], Any]:
    def spoil(state: dict[str, Tensor]) -> dict[str, Tensor]:
        broken = state[name].clone()
        broken.flatten()[3] = number
        return {**state, name: broken}

    return spoil


def without(name: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("x_embedder.proj.weight"), "expected x_embedder.proj.weight with 4 dimensions"),
        (without("blocks.2.attn.qkv.bias"), "lacks blocks.2.attn.qkv.bias"),
        (lambda s: {**s, "extra": torch.zeros(1)}, "also has extra"),
        (lambda s: {**s, "pos_embed": s["pos_embed"][:, :15]}, "pos_embed has 15"),
        (
            lambda s: {**s, "final_layer.linear.weight": torch.zeros(12, 64)},
            "expected 4 predicted channels, or 8 with a learned variance, .* makes 3",
        ),
        (
            lambda s: {**s, "blocks.1.mlp.fc1.bias": torch.zeros(128)},
            r"blocks\.1\.mlp\.fc1\.bias is 128, not 256",
        ),
        (lambda s: {**s, "x_embedder.proj.weight": torch.zeros(0, 4, 2, 2)}, "its width is 0"),
        (lambda s: {**s, "x_embedder.proj.weight": torch.zeros(64, 4, 0, 0)}, "patches are of 0"),
        (lambda s: {**s, "x_embedder.proj.weight": torch.zeros(2, 4, 2, 2)}, "a width of 2 "),
        (lambda s: {**s, "blocks.0.mlp.fc1.weight": torch.zeros(0, 64)}, "mlp_ratio is 0.0: "),
        (lambda s: {**s, "y_embedder.embedding_table.weight": torch.zeros(0, 64)}, "classes is -1"),
        (
            lambda s: {**s, "pos_embed": torch.zeros(1).expand(1, 10**9, 64)},
            "pos_embed is no dense tensor",
        ),
        (lambda s: {**s, "pos_embed": s["pos_embed"].long()}, "pos_embed is no dense tensor"),
        (lambda s: {**s, "pos_embed": s["pos_embed"].to_sparse()}, "pos_embed is no dense tensor"),
        (
            with_number("blocks.1.attn.proj.weight", float("nan")),
            r"1 of 4096 .* of blocks\.1\.attn\.p",
        ),
        (with_number("pos_embed", float("inf")), "numbers of pos_embed are not finite"),
        (lambda s: {1: torch.zeros(1)}, "is not a state dict"),
        (lambda s: [1, 2], "is not a state dict"),
        (lambda s: {"epoch": 3}, "is not a state dict"),
        (lambda s: {}, "expected x_embedder.proj.weight"),
    ],
)
def test_what_is_no_dit_checkpoint_is_refused_in_one_line(
    tmp_path: Path, spoil: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    path = write(spoil(dit_state(dit())), tmp_path / "dit.pt")
    with pytest.raises(UserError, match=message) as caught:
        convert(path, tmp_path / "ours", None)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "ours").exists()


class RunsCode:
    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.made,)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    made = tmp_path / "made by the pickle"
    path = write({"pos_embed": RunsCode(made)}, tmp_path / "dit.pt")
    with pytest.raises(UserError, match="cannot be read as weights alone: .* object of") as caught:
        convert(path, tmp_path / "ours", None)
    assert not made.exists()
    # PyTorch advises to run it.
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"hello", "no file of torch.save, or is damaged"),
    ],
)
def test_what_is_no_checkpoint_is_called_what_it_is(
    tmp_path: Path, content: bytes, kind: str
) -> None:
    (tmp_path / "dit.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=rf"dit\.ckpt cannot .*: it is {kind}") as caught:
        convert(tmp_path / "dit.ckpt", tmp_path / "ours", None)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("name", ["dit.pt", "dit.safetensors"])
def test_damaged_files_are_refused(tmp_path: Path, name: str) -> None:
    whole = write(dit_state(dit()), tmp_path / name).read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], pickle.dumps([1], protocol=2)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            convert(tmp_path / name, tmp_path / "ours", None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": SanaConfig()}, "attention.name is sana here and softmax in DiT"),
        (
            {"value_convolution": ValueConvolutionConfig(size=5, initialization="zero")},
            "value_convolution.size is 5 here and 0 in DiT",
        ),
        ({"feedforward": "mix"}, "feedforward is mix here and mlp in DiT"),
    ],
    ids=str,
)
def test_another_variant_is_not_written_as_dit(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    export_model(dit(**changes), tmp_path / "ours", None)
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "ours", tmp_path / "dit.pt", None)
    assert not (tmp_path / "dit.pt").exists()


def test_places_that_cannot_be_read_or_written_are_refused(tmp_path: Path) -> None:
    path = write(dit_state(dit()), tmp_path / "dit.pt")
    convert(path, tmp_path / "ours", None)
    for source, out, message in [
        (tmp_path / "gone", tmp_path / "x", "there is no checkpoint or exported model"),
        (path, tmp_path / "ours", "holds a model already"),
        (tmp_path / "ours", path, "dit.pt exists already"),
        (tmp_path / "ours", tmp_path / "new", "expected a name that ends in .pt, .pth, .ckpt, .b"),
        (tmp_path / "ours" / "model.json", tmp_path / "x", "expected a name that ends in .pt,"),
        (tmp_path, tmp_path / "x.pt", "holds no exported model"),
    ]:
        with pytest.raises(UserError, match=message):
            convert(source, out, None)
