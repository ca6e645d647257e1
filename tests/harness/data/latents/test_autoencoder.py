from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.data.latents.autoencoder import load_autoencoder
from models.errors import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"


def images(count: int, side: int) -> Tensor:
    stream = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=stream)


def edit_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.fixture(scope="module")
def shared_kl(kl_folder: Callable[..., Path]) -> Path:
    return kl_folder()


@pytest.fixture
def kl(shared_kl: Path, tmp_path: Path) -> Path:
    """A copy of the folder that may be damaged."""
    return Path(shutil.copytree(shared_kl, tmp_path / "kl"))


def test_kl_moments_are_those_of_diffusers_distribution(shared_kl: Path) -> None:
    pixels = images(3, 16)
    with torch.no_grad():
        theirs = AutoencoderKL.from_pretrained(shared_kl).encode(pixels / 127.5 - 1).latent_dist
    ours = load_autoencoder(str(shared_kl), "cpu").encode(pixels)
    assert ours.dtype == torch.float32
    mean, log_variance = ours.chunk(2, dim=1)
    assert torch.equal(mean, theirs.mean)
    assert torch.equal(log_variance.clamp(-30, 20), theirs.logvar)


def test_dc_latents_are_those_of_diffusers(dc_folder: Path) -> None:
    pixels = images(3, 16)
    with torch.no_grad():
        theirs = AutoencoderDC.from_pretrained(dc_folder).encode(pixels / 127.5 - 1).latent
    assert torch.equal(load_autoencoder(str(dc_folder), "cpu").encode(pixels), theirs)


def levels(decoded: Tensor) -> Tensor:
    """The nearest of 256, by rounding instead of flooring."""
    return (127.5 * decoded + 127.5).round().clamp(0, 255)


def test_kl_images_are_those_of_diffusers_decoder(shared_kl: Path) -> None:
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        network = AutoencoderKL.from_pretrained(shared_kl)
        theirs = levels(network.decode(latents / 0.3611 + 0.1159).sample)
    ours = load_autoencoder(str(shared_kl), "cpu").decode(latents)
    assert ours.dtype == torch.uint8
    assert ours.shape == (3, 3, 16, 16)
    assert len(ours.unique()) > 20
    # A pixel halfway between two levels may go either way.
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert (ours.int() == theirs.int()).float().mean() > 0.99


def test_dc_images_are_those_of_diffusers_decoder(dc_folder: Path) -> None:
    latents = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        theirs = levels(AutoencoderDC.from_pretrained(dc_folder).decode(latents / 0.41407).sample)
    ours = load_autoencoder(str(dc_folder), "cpu").decode(latents)
    assert len(ours.unique()) > 20
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert (ours.int() == theirs.int()).float().mean() > 0.99


def test_decoding_holds_no_more_than_a_batch_at_once(
    shared_kl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    decode = AutoencoderKL.decode

    def noted(self: AutoencoderKL, latents: Tensor) -> Any:
        sizes.append(len(latents))
        return decode(self, latents)

    monkeypatch.setattr(AutoencoderKL, "decode", noted)
    latents = torch.randn(7, 4, 4, 4)
    decoded = load_autoencoder(str(shared_kl), "cpu").decode(latents, batch_size=3)
    assert sizes == [3, 3, 1]
    assert len(decoded) == 7


def test_a_decoded_latent_that_is_not_finite_is_refused(shared_kl: Path) -> None:
    latents = torch.zeros(2, 4, 4, 4)
    latents[1, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        load_autoencoder(str(shared_kl), "cpu").decode(latents)


def test_facts_come_from_the_configuration(shared_kl: Path, dc_folder: Path) -> None:
    kl = load_autoencoder(str(shared_kl), "cpu")
    assert (kl.class_name, kl.stochastic) == ("AutoencoderKL", True)
    assert (kl.latent_channels, kl.downsampling) == (4, 2)
    assert (kl.scaling_factor, kl.shift_factor) == (0.3611, 0.1159)
    assert kl.latent_shape(32) == (4, 16, 16)
    assert kl.moments_shape(32) == (8, 16, 16)
    dc = load_autoencoder(str(dc_folder), "cpu")
    assert (dc.class_name, dc.stochastic) == ("AutoencoderDC", False)
    assert (dc.latent_channels, dc.downsampling) == (8, 4)
    assert (dc.scaling_factor, dc.shift_factor) == (0.41407, 0.0)
    assert dc.moments_shape(32) == dc.latent_shape(32) == (8, 8, 8)


def test_shapes_foretold_are_those_encoded(shared_kl: Path, dc_folder: Path) -> None:
    for folder in (shared_kl, dc_folder):
        autoencoder = load_autoencoder(str(folder), "cpu")
        assert autoencoder.encode(images(1, 16)).shape[1:] == autoencoder.moments_shape(16)


def test_a_side_that_does_not_fit_is_refused(shared_kl: Path) -> None:
    with pytest.raises(UserError, match=r"resolution is 33.* multiple of 2"):
        load_autoencoder(str(shared_kl), "cpu").latent_shape(33)


def test_identity_is_of_what_computes_and_not_of_how_it_is_packed(kl: Path, tmp_path: Path) -> None:
    before = load_autoencoder(str(kl), "cpu").identity
    packed = tmp_path / "packed"
    AutoencoderKL.from_pretrained(kl).save_pretrained(packed, max_shard_size="30KB")
    assert len(list(packed.glob("*.safetensors"))) > 1
    edit_config(packed, _diffusers_version="0.0.1", sample_size=512, _name_or_path="elsewhere")
    assert load_autoencoder(str(packed), "cpu").identity == before
    assert len(before) == 64


def test_identity_changes_with_a_weight(kl: Path) -> None:
    before = load_autoencoder(str(kl), "cpu").identity
    state = load_file(kl / WEIGHTS)
    state["encoder.conv_in.bias"][0] += 1e-6
    save_file(state, kl / WEIGHTS)
    assert load_autoencoder(str(kl), "cpu").identity != before


def test_identity_changes_with_names_shapes_and_scale(kl: Path) -> None:
    before = load_autoencoder(str(kl), "cpu").identity
    edit_config(kl, scaling_factor=0.5)
    assert load_autoencoder(str(kl), "cpu").identity != before
    edit_config(kl, scaling_factor=0.3611)
    assert load_autoencoder(str(kl), "cpu").identity == before
    state = load_file(kl / WEIGHTS)
    first, second = "encoder.conv_norm_out.weight", "encoder.conv_norm_out.bias"
    state[first], state[second] = state[second].clone(), state[first].clone()
    save_file(state, kl / WEIGHTS)
    assert load_autoencoder(str(kl), "cpu").identity != before


def test_half_precision_weights_compute_in_float32(kl: Path) -> None:
    state = {name: value.half() for name, value in load_file(kl / WEIGHTS).items()}
    save_file(state, kl / WEIGHTS)
    half = load_autoencoder(str(kl), "cpu")
    save_file({name: value.float() for name, value in state.items()}, kl / WEIGHTS)
    assert half.identity == load_autoencoder(str(kl), "cpu").identity
    assert half.encode(images(1, 16)).dtype == torch.float32


def test_a_missing_scale_is_the_one_of_the_class_and_a_missing_shift_is_0(kl: Path) -> None:
    path = kl / "config.json"
    config = json.loads(path.read_text())
    del config["scaling_factor"], config["shift_factor"]
    path.write_text(json.dumps(config))
    loaded = load_autoencoder(str(kl), "cpu")
    assert (loaded.scaling_factor, loaded.shift_factor) == (0.18215, 0.0)


def damage(kl: Path, fault: str) -> str:
    """What the message should say."""
    weights, config = kl / WEIGHTS, kl / "config.json"
    state = load_file(weights)
    match fault:
        case "another class":
            edit_config(kl, _class_name="AutoencoderTiny")
            return r"config.json is of the class AutoencoderTiny.*AutoencoderKL and AutoencoderDC"
        case "no class":
            config.write_text("{}")
            return r"is of the class None"
        case "no configuration":
            config.unlink()
            return r"lacks config.json: expected a folder in diffusers' layout"
        case "a pipeline":
            (kl / "vae").mkdir()
            shutil.move(config, kl / "vae" / "config.json")
            return r"lacks config.json: name .*/kl/vae"
        case "no JSON":
            config.write_text("{")
            return r"config.json is damaged"
        case "a list":
            config.write_text("[1]")
            return r"config.json is damaged"
        case "no weights":
            weights.unlink()
            return r"lacks its weights: expected diffusion_pytorch_model.safetensors"
        case "cut short":
            os.truncate(weights, weights.stat().st_size // 2)
            return r"cannot be loaded as AutoencoderKL"
        case "weights missing":
            del state["decoder.conv_out.bias"]
            save_file(state, weights)
            return r"lacks 1 of the weights of its config.json, such as decoder.conv_out.bias"
        case "other shapes":
            save_file({**state, "quant_conv.bias": torch.zeros(3)}, weights)
            return r"cannot be loaded as AutoencoderKL.*quant_conv.bias"
        case "a scale of each channel":
            edit_config(kl, latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
            return r"has latents_mean, a scale of each channel"
        case "no scale":
            edit_config(kl, scaling_factor=0)
            return r"has scaling_factor 0: expected above 0"
    raise AssertionError(fault)


@pytest.mark.parametrize(
    "fault",
    [
        "another class",
        "no class",
        "no configuration",
        "a pipeline",
        "no JSON",
        "a list",
        "no weights",
        "cut short",
        "weights missing",
        "other shapes",
        "a scale of each channel",
        "no scale",
    ],
)
def test_a_fault_is_told_in_one_line(kl: Path, fault: str) -> None:
    expected = damage(kl, fault)
    with pytest.raises(UserError, match=expected) as raised:
        load_autoencoder(str(kl), "cpu")
    assert "\n" not in str(raised.value)


def test_grey_images_are_refused(kl_folder: Callable[..., Path]) -> None:
    folder = kl_folder(in_channels=1, out_channels=1)
    with pytest.raises(UserError, match=r"in_channels 1 instead of 3"):
        load_autoencoder(str(folder), "cpu")


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_not_executed(kl: Path, tmp_path: Path) -> None:
    (kl / WEIGHTS).unlink()
    torch.save({"encoder.conv_in.bias": Trap(tmp_path / "sprung")}, kl / "pytorch_model.bin")
    (kl / "pytorch_model.bin").rename(kl / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match=r"model.bin is a pickle.*safe_serialization=True"):
        load_autoencoder(str(kl), "cpu")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["nowhere", "./no/where", "/no/where", "~/no-where-at-all", ""])
def test_a_folder_that_is_not_there_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if not name:
        name = str(tmp_path / "file")
        Path(name).touch()
    with pytest.raises(UserError, match=f"there is no autoencoder {name}: expected a folder"):
        load_autoencoder(name, "cpu")


class Hub:
    """Stands for the hub's client: repositories by name, and which are in its cache."""

    def __init__(self, repositories: dict[str, Path], cached: bool) -> None:
        self.repositories = repositories
        self.cached = cached
        self.asked: list[str] = []

    def download(
        self, repository: str, *, allow_patterns: list[str], local_files_only: bool
    ) -> str:
        self.asked.append(f"{repository} {'cache' if local_files_only else 'network'}")
        assert any(
            pattern.endswith("diffusion_pytorch_model.safetensors") for pattern in allow_patterns
        )
        assert not any(pattern.endswith(".bin") for pattern in allow_patterns)
        if repository not in self.repositories or (local_files_only and not self.cached):
            raise LocalEntryNotFoundError("Name or service\nnot known")
        return str(self.repositories[repository])


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("below", ["", "vae"])
def test_a_name_on_the_hub_is_found_in_its_cache_first(
    shared_kl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool, below: str
) -> None:
    shutil.copytree(shared_kl, tmp_path / "snapshot" / below)
    hub = Hub({"owner/name": tmp_path / "snapshot"}, cached)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.download)
    loaded = load_autoencoder("/".join(filter(None, ("owner/name", below))), "cpu")
    assert loaded.identity == load_autoencoder(str(shared_kl), "cpu").identity
    assert hub.asked == ["owner/name cache", *([] if cached else ["owner/name network"])]


def test_a_name_that_the_hub_does_not_give_points_at_local_folders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", Hub({}, cached=False).download)
    with pytest.raises(UserError, match=r"no folder owner/name.*not known.*local folder") as raised:
        load_autoencoder("owner/name", "cpu")
    assert "\n" not in str(raised.value)
