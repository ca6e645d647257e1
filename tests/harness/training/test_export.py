from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.config.schema import TrialConfig
from harness.config.serialisation import to_plain
from harness.training.build import build_backbone
from harness.training.export import DESCRIPTION, WEIGHTS, export_model, load_exported
from models.attention import load_variant, variant_names
from models.attention.base import ValueConvolutionConfig
from models.backbone import Backbone, BackboneConfig
from models.errors import UserError


def network(attention: str = "sana", seed: int = 0, **changes: Any) -> Backbone:
    """Random weights, those that start at zero included."""
    fields = {key: changes.pop(key) for key in tuple(changes) if key not in PLAIN}
    config = load_variant(attention).config.model_validate({"name": attention, **fields})
    backbone = Backbone(BackboneConfig(**{**PLAIN, "attention": config, **changes}), seed)
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=stream))
    return backbone.eval()


PLAIN: dict[str, Any] = {
    "image_shape": (3, 8, 8),
    "num_classes": 4,
    "depth": 2,
    "width": 32,
    "heads": 2,
    "patch_size": 2,
    "feedforward": "mlp",
    "mlp_ratio": 2.0,
    "positions": "sincos",
    "qk_norm": False,
    "value_convolution": ValueConvolutionConfig(size=3, initialization="identity"),
    "attention": None,
    "variance_channels": 1,
    "sum_precision": "float32",
}


def predicted(backbone: Backbone) -> Tensor:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return backbone(images, torch.tensor([3.0, 800.0]), torch.tensor([0, 4]))


@pytest.mark.parametrize(
    "made",
    [
        *({"attention": name} for name in variant_names()),
        {"feedforward": "mix", "positions": "none", "qk_norm": True},
        {"mlp_ratio": 75 / 32, "variance_channels": 1},
        {
            "attention": "dydila",
            "kernel_sharing_roles": "shared",
            "kernel_per_head": True,
            "head_dim": 16,
            "normalizer": "rms",
            "lambda_init": 0.1,
            "gamma_spread": 1.0,
        },
    ],
    ids=str,
)
def test_a_loaded_network_is_the_exported_one(tmp_path: Path, made: dict[str, Any]) -> None:
    exported = network(**made)
    export_model(exported, tmp_path / "out", None)
    loaded = load_exported(tmp_path / "out")
    assert loaded.config == exported.config
    assert not loaded.training
    assert torch.equal(predicted(loaded), predicted(exported))


def test_other_tools_can_read_both_files(tmp_path: Path) -> None:
    exported = network("softmax")
    export_model(exported, tmp_path, None)
    weights = load_file(tmp_path / WEIGHTS)
    assert weights.keys() == exported.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in exported.state_dict().items())
    described = json.loads((tmp_path / DESCRIPTION).read_text())
    assert described["trial"] is None
    assert described["backbone"] == {
        **PLAIN,
        "image_shape": [3, 8, 8],
        "value_convolution": {"size": 3, "initialization": "identity"},
        "attention": {"name": "softmax"},
    }


def test_the_trial_that_trained_it_stands_beside(
    tmp_path: Path, trial_config: Callable[..., TrialConfig]
) -> None:
    config = trial_config("sana", "objective.logit_mean=0.5")
    export_model(build_backbone(config, (1, 8, 8), 10), tmp_path, config)
    described = json.loads((tmp_path / DESCRIPTION).read_text())
    assert TrialConfig.model_validate(described["trial"]) == config
    assert described["trial"] == to_plain(config)


def test_a_model_is_never_replaced(tmp_path: Path) -> None:
    export_model(network(seed=1), tmp_path, None)
    before = (tmp_path / WEIGHTS).read_bytes()
    with pytest.raises(UserError, match="holds a model already"):
        export_model(network(seed=2), tmp_path, None)
    assert (tmp_path / WEIGHTS).read_bytes() == before
    with pytest.raises(UserError, match="is a file"):
        export_model(network(), tmp_path / WEIGHTS, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 3}, r"depth is 3 in model\.json and 2 in model\.safetensors"),
        ({"width": 64}, r"bias is 64 by model\.json and 32 in model\.safetensors"),
        ({"patch_size": 4}, r"weight is 32x3x4x4 by model\.json and 32x3x2x2 in"),
        ({"num_classes": 9}, r"label_embedding\.table\.weight is 10x32 by .* and 5x32 in"),
        ({"mlp_ratio": 4.0}, r"feedforward\.hidden\.bias is 128 by .* and 64 in"),
        ({"attention": {"name": "softmax"}}, r"does not fit model\.json: .*qkv\.bias"),
        ({"attention": {"name": "dydila"}}, r"does not fit model\.json: .*redundant_query"),
        ({"attention": {"name": "snaa"}}, r"backbone\.attention: .*'snaa'.*'dydila'"),
        ({"attention": {"name": "sana", "heads": 1}}, r"backbone\.attention\.sana\.heads: Extra"),
        ({"attention": "sana"}, r"backbone\.attention: .*dictionary"),
        ({"feedforward": "moe"}, r"backbone\.feedforward: Input should be 'mlp' or 'mix'"),
        ({"layers": 3}, r"backbone\.layers: Extra inputs"),
        *(
            ({name: value}, rf"backbone\.{name}: Input should be (a|greater|less)")
            for name in ("depth", "width", "heads", "patch_size", "num_classes", "mlp_ratio")
            for value in (0, -1, 10**9, float("nan"), 1.5e300)
        ),
        ({"image_shape": [3, 0, 8]}, r"backbone\.image_shape\.1: Input should be greater"),
        ({"image_shape": [3, 65536, 65536]}, r"backbone: .* tokens, more than 1048576"),
        ({"patch_size": 3}, "images of 8x8 cannot be cut into patches of 3"),
    ],
    ids=str,
)
def test_another_variant_or_size_is_refused_with_both_values(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    export_model(network("sana"), tmp_path, None)
    path = tmp_path / DESCRIPTION
    described = json.loads(path.read_text())
    path.write_text(json.dumps({**described, "backbone": {**described["backbone"], **changes}}))
    with pytest.raises(UserError, match=message) as caught:
        load_exported(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_of_a_larger_variant_are_refused_by_name(tmp_path: Path) -> None:
    export_model(network("softmax"), tmp_path / "softmax", None)
    export_model(network("sana"), tmp_path / "sana", None)
    (tmp_path / "softmax" / WEIGHTS).replace(tmp_path / "sana" / WEIGHTS)
    with pytest.raises(UserError, match=r"blocks\.0\.attention\.qkv\.bias is in model.safetensors"):
        load_exported(tmp_path / "sana")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (DESCRIPTION, b"{", "is damaged"),
        (DESCRIPTION, b"\xff", "is damaged"),
        (DESCRIPTION, b"[]", "is damaged .*valid dictionary"),
        (DESCRIPTION, b'{"format": 2}', r"is damaged \(format: Input should be 1"),
        (DESCRIPTION, b'{"format": 1}', r"is damaged \(backbone: Field required"),
        pytest.param(DESCRIPTION, b"[" * 200_000, "is damaged", id="deep"),
        (WEIGHTS, b"12345678 no safetensors", "is no safetensors file, or is damaged"),
    ],
)
def test_damaged_files_are_refused_by_name(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    export_model(network(), tmp_path, None)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}:? {message}"):
        load_exported(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no exported model: it lacks model\.json"):
        load_exported(tmp_path)
    export_model(network(), tmp_path, None)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"there is no file .*model\.safetensors"):
        load_exported(tmp_path)


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path) -> None:
    export_model(network(), tmp_path, None)
    weights = load_file(tmp_path / WEIGHTS)
    del weights["final_layer.linear.bias"]
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(UserError, match=r"final_layer\.linear\.bias"):
        load_exported(tmp_path)
