"""The data set of a user's own images, as pixels and as latents."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from harness.config.sections import DataConfig
from harness.data.batches import BatchOrder, DrawOrder, loader_of
from harness.data.datasets import data_content, load_data_set, load_decoder
from harness.data.decoding import decode_image
from harness.data.images import EncodedImages, ImageSet, to_network, unflipped
from harness.data.latents.autoencoder import load_autoencoder
from harness.data.latents.encode import encode
from harness.data.make_manifest import make_manifest
from harness.data.manifest import read_manifest, write_manifest
from harness.data.sources import open_source
from harness.processes.progress import ignore_progress
from models.errors import UserError
from models.randomness import generator
from tests.support.latents import encode_spec

RESOLUTION = 16
CPU = torch.device("cpu")


def manifest_of(images: Path, path: Path) -> Path:
    manifest = make_manifest(
        open_source(images),
        name="test/v1",
        class_ids=None,
        classes=None,
        per_class=None,
        seed=0,
        names={},
        processes=1,
        strict=True,
        on_progress=ignore_progress,
    )
    write_manifest(path, manifest)
    return path


def save_autoencoder(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8),
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=2,
        scaling_factor=0.5,
    )
    autoencoder.save_pretrained(folder, safe_serialization=True)
    return folder


@dataclass(frozen=True)
class Prepared:
    """Images of two classes, 40 by 30 pixels, with all that is made from them."""

    root: Path

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def latents(self) -> Path:
        return self.root / "latents"

    @property
    def autoencoder(self) -> Path:
        return self.root / "autoencoder"

    def config(self, **changes: Any) -> DataConfig:
        values = {
            "name": "images",
            "path": str(self.images),
            "manifest": str(self.manifest),
            "resolution": RESOLUTION,
            "held_out": 4,
            "horizontal_flip": True,
            "workers": 0,
        }
        return DataConfig.model_validate({**values, **changes})

    def latent_config(self, **changes: Any) -> DataConfig:
        values = {
            "latents": str(self.latents),
            "autoencoder": str(self.autoencoder),
            "downsampling": 2,
        }
        return self.config(**{**values, **changes})


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    prepared = Prepared(tmp_path_factory.mktemp("images"))
    stream = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (prepared.images / name).mkdir(parents=True)
        for number in range(9):
            pixels = stream.integers(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(prepared.images / name / f"{number}.png")
    manifest_of(prepared.images, prepared.manifest)
    save_autoencoder(prepared.autoencoder, seed=0)
    encode_into(prepared, prepared.latents, prepared.autoencoder)
    return prepared


def encode_into(prepared: Prepared, folder: Path, autoencoder: Path) -> None:
    encode(
        open_source(prepared.images),
        read_manifest(prepared.manifest),
        load_autoencoder(str(autoencoder), CPU),
        encode_spec(folder, resolution=RESOLUTION, images_per_shard=5, dtype="float32"),
    )


@pytest.fixture
def prepared(made_once: Prepared, tmp_path: Path) -> Prepared:
    """A copy that a test may spoil."""
    shutil.copytree(made_once.root, tmp_path / "copy")
    return Prepared(tmp_path / "copy")


def all_inputs(images: ImageSet, seed: int = 0) -> torch.Tensor:
    index = torch.arange(len(images.labels))
    return images.inputs(index, unflipped(index), lambda row: generator("test", seed, row))


@pytest.mark.parametrize("ask", [data_content, load_data_set])
def test_holding_out_all_images_is_refused_by_the_check_already(
    made_once: Prepared, ask: Callable[[DataConfig], object]
) -> None:
    with pytest.raises(UserError, match="data.held_out is 18, but there are only 18 images"):
        ask(made_once.config(held_out=18))


@pytest.mark.parametrize("key", ["path", "manifest", "latents", "autoencoder"])
@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "x" * 300, "gone"])
def test_a_path_that_cannot_be_looked_at_is_one_line(
    made_once: Prepared, key: str, path: str
) -> None:
    config = made_once.latent_config(**{key: path})
    with pytest.raises(UserError, match=path) as caught:
        load_decoder(config, CPU) if key == "autoencoder" else load_data_set(config)
    assert "\n" not in str(caught.value)


def test_pixels_are_those_of_the_files_in_the_order_of_the_manifest(made_once: Prepared) -> None:
    data = load_data_set(made_once.config())
    assert (len(data.train.labels), len(data.held_out.labels)) == (14, 4)
    assert data.train.class_names == ("cat", "dog")
    assert data.held_out.labels.bincount().tolist() == [2, 2]
    whole = EncodedImages(
        open_source(made_once.images), read_manifest(made_once.manifest), RESOLUTION
    )
    files = sorted(made_once.images.glob("*/*.png"))
    expected = np.stack([decode_image(file.read_bytes(), RESOLUTION) for file in files])
    pixels = whole.pixels(torch.arange(18))
    assert np.array_equal(pixels.permute(0, 2, 3, 1).numpy(), expected)
    assert torch.equal(all_inputs(whole), to_network(pixels))
    assert whole.labels.tolist() == [0] * 9 + [1] * 9


def test_images_in_memory_and_images_on_the_disk_are_the_same(made_once: Prepared) -> None:
    kept, read = (
        EncodedImages(
            open_source(made_once.images),
            read_manifest(made_once.manifest),
            RESOLUTION,
            kept_in_memory=limit,
        ).subset(torch.tensor([17, 3, 8]))
        for limit in (2**30, 0)
    )
    assert torch.equal(all_inputs(kept), all_inputs(read))
    assert kept.fingerprint() == read.fingerprint()
    assert kept.fingerprint() != kept.subset(torch.tensor([0, 2, 1])).fingerprint()


def test_latents_are_sampled_from_the_autoencoders_distribution(made_once: Prepared) -> None:
    data = load_data_set(made_once.latent_config())
    assert data.train.shape == (2, 8, 8)
    network = AutoencoderKL.from_pretrained(made_once.autoencoder)
    index = torch.arange(6)
    flips = index % 2 == 1
    ours = data.train.inputs(index, flips, lambda row: generator("test", row))
    pictures = to_network(data.train.pictures.pixels(index))
    pictures = torch.where(flips.view(-1, 1, 1, 1), pictures.flip(-1), pictures)
    with torch.no_grad():
        moments = network.encode(pictures).latent_dist.parameters
    for row in range(6):
        distribution = DiagonalGaussianDistribution(moments[row : row + 1])
        expected = 0.5 * distribution.sample(generator("test", row))[0]
        torch.testing.assert_close(ours[row], expected, rtol=1e-4, atol=1e-4)


def test_pixels_and_latents_hold_out_and_show_the_same_images(made_once: Prepared) -> None:
    pixels, latents = (
        load_data_set(config) for config in (made_once.config(), made_once.latent_config())
    )
    assert pixels.held_out.pictures.fingerprint() == latents.held_out.pictures.fingerprint()
    index = torch.arange(4)
    assert torch.equal(
        pixels.held_out.pictures.pixels(index), latents.held_out.pictures.pixels(index)
    )


@pytest.mark.parametrize("kind", ["pixels", "latents"])
def test_batches_do_not_depend_on_the_number_of_workers_nor_on_a_restart(
    made_once: Prepared, kind: str
) -> None:
    config = made_once.config() if kind == "pixels" else made_once.latent_config()
    images = load_data_set(config).train
    order = DrawOrder(len(images.labels), 4, 3, horizontal_flip=True)

    def batches(start: int, workers: int) -> list[torch.Tensor]:
        return [
            batch.images for batch in loader_of(images, BatchOrder(order, start, 7), 3, workers)
        ]

    expected = batches(0, 0)
    for found in (batches(0, 1), batches(0, 3)):
        assert all(map(torch.equal, expected, found))
    assert all(map(torch.equal, expected[5:], batches(5, 2)))
    if kind == "latents":
        # Of the same image in two epochs: another flip, or another sample.
        assert not torch.equal(torch.cat(expected).unique(dim=0), torch.cat(expected)[:14])


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_each_batch_without_repeating_or_losing_an_image(
    made_once: Prepared, ranks: int
) -> None:
    images = load_data_set(made_once.latent_config()).train
    order = DrawOrder(len(images.labels), 5, 3, horizontal_flip=False)
    whole = list(loader_of(images, BatchOrder(order, 0, 6), 3, 0))
    parts = [list(loader_of(images, BatchOrder(order, 0, 6, r, ranks), 3, 0)) for r in range(ranks)]
    for step, expected in enumerate(whole):
        positions = torch.cat([part[step].positions for part in parts])
        found = torch.cat([part[step].images for part in parts])[positions.argsort()]
        assert torch.equal(found, expected.images)
    drawn = torch.cat([batch.positions for batch in whole])
    assert drawn.tolist() == list(range(30))


def test_the_content_follows_the_images_and_not_where_they_are(
    prepared: Prepared, tmp_path: Path
) -> None:
    before = data_content(prepared.config())
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in prepared.images.rglob("*.png"):
            packed.write(file, f"train/{file.relative_to(prepared.images)}")
    assert data_content(prepared.config(path=str(archive))) == before
    with_latents = data_content(prepared.latent_config())
    assert with_latents != before
    other = save_autoencoder(tmp_path / "other", seed=1)
    encode_into(prepared, tmp_path / "other-latents", other)
    again = prepared.latent_config(latents=str(tmp_path / "other-latents"))
    assert data_content(again) not in (before, with_latents)
    with pytest.raises(UserError, match="name the autoencoder that they were encoded with"):
        load_decoder(again, CPU)
    (prepared.images / "cat" / "0.png").write_bytes(
        (prepared.images / "dog" / "0.png").read_bytes()
    )
    manifest_of(prepared.images, prepared.manifest)
    assert data_content(prepared.config()) != before


def test_a_content_that_was_written_down_must_be_met(made_once: Prepared) -> None:
    content = data_content(made_once.config())
    load_data_set(made_once.config(content=content))
    with pytest.raises(UserError, match=r"data\.content is feed, but .* have " + str(content)):
        load_data_set(made_once.config(content="feed"))


@pytest.mark.parametrize("kept_in_memory", [0, 2**30])
def test_an_image_that_changed_is_named(prepared: Prepared, kept_in_memory: int) -> None:
    """Its size is the same, so that only reading tells."""
    changed = prepared.images / "dog" / "3.png"
    content = bytearray(changed.read_bytes())
    content[-20] ^= 0xFF
    changed.write_bytes(content)
    data_content(prepared.config())
    images = EncodedImages(
        open_source(prepared.images),
        read_manifest(prepared.manifest),
        RESOLUTION,
        kept_in_memory=kept_in_memory,
    )
    with pytest.raises(UserError, match=r"dog/3\.png .* is not the image of the manifest test/v1"):
        images.pixels(torch.arange(18))


def test_an_image_that_is_gone_or_has_another_size_is_named_before_anything_starts(
    prepared: Prepared,
) -> None:
    (prepared.images / "cat" / "5.png").write_bytes(b"short")
    with pytest.raises(UserError, match=r"cat/5\.png"):
        data_content(prepared.config())
    (prepared.images / "cat" / "5.png").unlink()
    with pytest.raises(UserError, match=r"cat/5\.png"):
        data_content(prepared.config())


def lose_a_shard(prepared: Prepared) -> None:
    next(prepared.latents.glob("shard-*.safetensors")).unlink()


def take_another_manifest(prepared: Prepared) -> None:
    (prepared.images / "dog" / "8.png").unlink()
    manifest_of(prepared.images, prepared.manifest)


@pytest.mark.parametrize(
    ("changes", "spoil", "message"),
    [
        ({"path": None}, None, r"data\.path is null"),
        ({"path": "/no/such"}, None, r"data\.path names /no/such, which is not there"),
        ({"manifest": None, "latents": None, "downsampling": 1}, None, r"data\.manifest is null"),
        ({"manifest": "/no/such.json"}, None, r"data\.manifest names /no/such\.json"),
        ({"latents": "/no/such"}, None, r"data\.latents names /no/such"),
        ({"autoencoder": None}, None, r"data\.autoencoder is null"),
        ({"resolution": 32}, None, r"data\.resolution is 32, but .* encoded with 16"),
        ({"downsampling": 4}, None, r"data\.downsampling is 4, but .* encoded with 2"),
        ({}, lose_a_shard, r"lacks 1 of its shards"),
        ({}, take_another_manifest, r"holds latents of the manifest test/v1"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(
    prepared: Prepared,
    changes: dict[str, Any],
    spoil: Callable[[Prepared], None] | None,
    message: str,
) -> None:
    if spoil is not None:
        spoil(prepared)
    with pytest.raises(UserError, match=message):
        data_content(prepared.latent_config(**changes))


def test_the_manifest_of_the_latents_serves_where_none_is_named(made_once: Prepared) -> None:
    named, unnamed = made_once.latent_config(), made_once.latent_config(manifest=None)
    assert data_content(named) == data_content(unnamed)


def test_samples_are_decoded_by_the_autoencoder(made_once: Prepared) -> None:
    latents = torch.randn(3, 2, 8, 8, generator=generator("test"))
    decoded = load_decoder(made_once.latent_config(), CPU)(latents)
    network = AutoencoderKL.from_pretrained(made_once.autoencoder)
    with torch.no_grad():
        images = network.decode(latents / 0.5).sample
    expected = (images * 127.5 + 127.5).clamp(0, 255)
    assert (decoded.double() - expected).abs().max() <= 0.51
    assert decoded.shape == (3, 3, 16, 16)


def test_latents_are_loaded_without_looking_at_images_that_are_checked_where_they_are_opened(
    prepared: Prepared,
) -> None:
    latents = prepared.latent_config(content=data_content(prepared.latent_config()))
    (prepared.images / "cat" / "5.png").write_bytes(b"short")
    data = load_data_set(latents)
    assert all_inputs(data.train).isfinite().all()
    for look in (lambda: data.train.pictures, lambda: load_data_set(prepared.config())):
        with pytest.raises(UserError, match=r"cat/5\.png has 5 bytes"):
            look()
