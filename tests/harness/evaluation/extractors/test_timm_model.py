from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from harness.evaluation.extractors import check_extractor, load_extractor
from models.errors import UserError
from tests.support.stand_ins.random_weights import smooth_images


def saved(network: torch.nn.Module, path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(network.state_dict(), path)
    else:
        torch.save(network.state_dict(), path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_features_are_what_the_last_layer_sees(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", pretrained=False).eval()
    extractor = load_extractor("torch:test_resnet", saved(network, tmp_path / f"w{suffix}"))
    images = smooth_images(2, 160, seed=0)
    config = resolve_model_data_config(network)
    assert config["input_size"] == (3, 160, 160)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    seen = []
    network.get_classifier().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        ours = extractor(images)
        logits = network((images.permute(0, 3, 1, 2) / 255 - mean) / std)
    torch.testing.assert_close(ours.features, seen[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.logits, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [32, 400])
def test_images_are_resized_as_timm_resizes_them(side: int, tmp_path: Path) -> None:
    """timm's own transform works on Pillow's images, which are rounded: within a grey level."""
    network = timm.create_model("test_resnet", pretrained=False).eval()
    extractor = load_extractor("torch:test_resnet", saved(network, tmp_path / "w.pth"))
    images = smooth_images(1, side, seed=3)
    config = resolve_model_data_config(network)
    transform = create_transform(**{**config, "crop_pct": 1.0})
    expected = transform(Image.fromarray(images[0].numpy()))
    inputs = []
    extractor.network.conv1.register_forward_pre_hook(lambda _, seen: inputs.append(seen[0][0]))
    with torch.inference_mode():
        extractor(images)
    levels = (inputs[0] - expected) * 255 * torch.tensor(config["std"]).view(3, 1, 1)
    assert levels.abs().max() < 1.5
    assert levels.mean().abs() < 0.1


def test_everything_is_named(timm_weights: Path) -> None:
    extractor = load_extractor("torch:test_vit", timm_weights)
    assert extractor.name == "torch:test_vit"
    assert extractor.weights_sha256 == hashlib.sha256(timm_weights.read_bytes()).hexdigest()
    assert "bicubic to 160x160" in extractor.resize
    assert "mean (0.5, 0.5, 0.5)" in extractor.resize


def test_a_network_without_a_classifier_has_no_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as DINOv2's."""
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, num_classes=0))
    network = timm.create_model("test_vit").eval()
    extractor = load_extractor("torch:test_vit", saved(network, tmp_path / "w.pth"))
    with torch.inference_mode():
        extracted = extractor(smooth_images(2, 160, seed=0))
    assert extractor.classes == 0
    assert extracted.logits.shape == (2, 0)
    assert extracted.features.shape == (2, network.num_features)


@pytest.mark.parametrize(
    ("model", "message"),
    [("test_vitt", "did you mean test_vit"), ("test_vit.no_such_tag", "cannot build")],
)
def test_unknown_models_are_refused(model: str, message: str, timm_weights: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_extractor(f"torch:{model}", timm_weights)


def test_weights_must_be_named_and_be_those_of_the_model(timm_weights: Path) -> None:
    with pytest.raises(UserError, match="needs a file of weights"):
        load_extractor("torch:test_vit")
    with pytest.raises(UserError, match="not those of test_resnet"):
        load_extractor("torch:test_resnet", timm_weights)


@pytest.mark.parametrize("model", ["test_resnet", "test_vit"])
def test_the_size_that_is_asked_for_is_what_the_network_sees(model: str, tmp_path: Path) -> None:
    network = timm.create_model(model, pretrained=False)
    file = saved(network, tmp_path / "w.pth")
    images = smooth_images(2, 96, seed=0)
    default = load_extractor(f"torch:{model}", file)
    other = load_extractor(f"torch:{model}", file, 96)
    assert "to 160x160" in default.resize
    assert "to 96x96" in other.resize
    with torch.inference_mode():
        ours, theirs = other(images).features, default(images).features
    assert ours.shape == theirs.shape
    assert not torch.allclose(ours, theirs, rtol=1e-2)
    seen = []
    other.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    expected = other.network.eval()
    config = resolve_model_data_config(network)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        maps = expected.forward_features((images.permute(0, 3, 1, 2) / 255 - mean) / std)
        features = expected.forward_head(maps, pre_logits=True).flatten(1)
    torch.testing.assert_close(ours, features, rtol=1e-4, atol=1e-5)


def test_dinov2_is_seen_at_the_size_of_published_figures(tmp_path: Path) -> None:
    """timm names 518 pixels; its own resampling of position embeddings is the expected one."""
    model = "vit_small_patch14_dinov2"
    torch.manual_seed(0)
    network = timm.create_model(model, pretrained=False, depth=1).eval()
    assert resolve_model_data_config(network)["input_size"] == (3, 518, 518)
    monkeypatched = timm.create_model

    def shallow(name: str, **options: object) -> torch.nn.Module:
        return monkeypatched(name, depth=1, **options)

    file = saved(network, tmp_path / "w.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", shallow)
        extractor = load_extractor(f"torch:{model}", file)
        large = load_extractor(f"torch:{model}", file, 518)
    assert "bicubic to 224x224" in extractor.resize
    assert "bicubic to 518x518" in large.resize
    images = smooth_images(1, 224, seed=1)
    config = resolve_model_data_config(network)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = shallow(model, pretrained=False, dynamic_img_size=True).eval()
    expected.load_state_dict(network.state_dict())
    with torch.inference_mode():
        theirs = expected((images.permute(0, 3, 1, 2) / 255 - mean) / std)
        torch.testing.assert_close(extractor(images).features, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "inception"])
def test_a_size_is_refused_where_it_is_fixed(name: str) -> None:
    with pytest.raises(UserError, match=f"the extractor {name} sees images of one size"):
        load_extractor(name, None, 224)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (100, "torch:test_vit takes no images of 100x100 pixels, since its patches have 16 a side"),
        (100, "a multiple of 16, such as 96 or 112"),
        (8, "a multiple of 16, such as 16 "),
    ],
)
def test_a_size_that_leaves_a_rest_of_a_patch_is_refused_without_the_weights(
    size: int, said: str, tmp_path: Path
) -> None:
    file = saved(timm.create_model("test_vit", pretrained=False), tmp_path / "w.pth")
    with pytest.raises(UserError, match=said):
        load_extractor("torch:test_vit", file, size)
    file.write_bytes(b"not looked at")
    with pytest.raises(UserError, match=said):
        check_extractor("torch:test_vit", file, size)


def test_sizes_that_fit_are_found_fit_without_the_weights(tmp_path: Path) -> None:
    """Of patches, and of convolutions, which take any."""
    (tmp_path / "w.pth").write_bytes(b"not looked at")
    for model, size in (("test_vit", 96), ("vit_small_patch14_dinov2", 518), ("test_resnet", 101)):
        check_extractor(f"torch:{model}", tmp_path / "w.pth", size)


def test_a_size_that_a_network_does_not_take_is_refused(tmp_path: Path) -> None:
    """Patches of 4 pixels fill it, but the network is made for one size."""
    file = saved(timm.create_model("coat_tiny", pretrained=False), tmp_path / "w.pth")
    with pytest.raises(UserError, match="torch:coat_tiny takes no images of 64x64 pixels"):
        load_extractor("torch:coat_tiny", file, 64)
