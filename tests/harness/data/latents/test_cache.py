from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.data.latents.cache import DESCRIPTION, LatentCache, LatentSpace, Sharding, open_cache
from harness.data.latents.encode import LOCKS, begin_cache, describe
from harness.data.latents.shard import write_shard
from harness.processes.progress import ignore_progress
from harness.processes.signals import StopRequest
from models.errors import Preempted, UserError
from tests.support.latents import encode_spec
from tests.support.processes.lock_holder import flocked

IMAGES = 60


SPACE = LatentSpace("a" * 64, "AutoencoderKL", 4, 2, 0.3611, 0.1159, stochastic=True)


AGAIN = "delete it and run `python -m harness data encode` again"


def stored(row: int) -> Tensor:
    """What is written of an image and its mirror image, (2, 8, 3, 3)."""
    return torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(row))


@pytest.fixture
def build(tmp_path: Path, images_in_memory: Callable[..., Any]) -> Callable[..., LatentCache]:
    """A cache whose shards were written by hand."""

    def build(
        dtype: Any = "float16", name: str = "latents", space: LatentSpace = SPACE
    ) -> LatentCache:
        manifest = images_in_memory(IMAGES).manifest()
        wanted = describe(
            manifest, space, encode_spec(tmp_path, resolution=6, dtype=dtype, images_per_shard=20)
        )
        cache = begin_cache(tmp_path / name, wanted, manifest)
        for number, rows in enumerate(cache.sharding.rows):
            moments = torch.stack([stored(int(row)) for row in rows]).to(getattr(torch, dtype))
            write_shard(shard(cache, number), cache.shard_facts(number), moments)
        return open_cache(tmp_path / name)

    return build


def shard(cache: LatentCache, number: int) -> Path:
    return cache.folder / f"shard-{number:05}.safetensors"


def test_a_wait_for_the_process_that_begins_a_cache_ends_when_a_stop_is_requested(
    tmp_path: Path, images_in_memory: Callable[..., Any]
) -> None:
    manifest = images_in_memory(IMAGES).manifest()
    wanted = describe(
        manifest, SPACE, encode_spec(tmp_path, resolution=6, dtype="float16", images_per_shard=20)
    )
    stop = StopRequest()
    threading.Timer(0.2, stop.request, ["SIGTERM"]).start()
    with (
        flocked(tmp_path / LOCKS / f"{DESCRIPTION}.lock"),
        pytest.raises(Preempted, match="stopped by SIGTERM"),
    ):
        begin_cache(tmp_path, wanted, manifest, stop.between_batches(ignore_progress))
    assert begin_cache(tmp_path, wanted, manifest).manifest == manifest


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_moments_are_those_written_of_each_image_and_its_mirror_image(
    build: Callable[..., LatentCache], dtype: str
) -> None:
    cache = build(dtype)
    for row in range(IMAGES):
        for mirrored in (False, True):
            read = cache.moments(row, mirrored)
            assert read.dtype == torch.float32
            assert torch.equal(read, stored(row)[int(mirrored)].to(getattr(torch, dtype)).float())


def test_it_tells_what_it_was_made_from(build: Callable[..., LatentCache]) -> None:
    cache = build()
    assert cache.latent_shape == (4, 3, 3)
    assert cache.resolution == 6
    assert cache.space.identity == "a" * 64
    assert len(cache.manifest.images) == IMAGES
    assert not cache.missing_shards


def test_a_sample_is_scaled_as_by_its_autoencoder(build: Callable[..., LatentCache]) -> None:
    cache = build()
    moments = cache.moments(0, mirrored=False)
    noise = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(5))
    expected = (moments[:4] + (moments[4:] / 2).exp() * noise - 0.1159) * 0.3611
    sample = cache.space.sample(moments, torch.Generator().manual_seed(5))
    torch.testing.assert_close(sample, expected)


def test_what_was_read_can_be_written_to(build: Callable[..., LatentCache]) -> None:
    cache = build("float32")
    cache.moments(0, mirrored=False).zero_()
    assert torch.equal(cache.moments(0, mirrored=False), stored(0)[0])


def test_shards_are_ordinary_safetensors_files(build: Callable[..., LatentCache]) -> None:
    cache = build()
    with safe_open(shard(cache, 0), framework="np") as file:
        described = json.loads(file.metadata()["latents"])
        moments = file.get_tensor("moments")
    ids = {image.id: row for row, image in enumerate(cache.manifest.images)}
    assert described["autoencoder"] == "a" * 64
    assert described["manifest"] == cache.manifest.hash
    for place, image_id in enumerate(described["ids"]):
        assert np.array_equal(moments[place], stored(ids[image_id]).half().numpy())


def test_identity_changes_with_everything_that_changes_a_latent(
    images_in_memory: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(images: int = 3, space: LatentSpace = SPACE, **changed: Any) -> str:
        facts = {"resolution": 6, "dtype": "float16", "images_per_shard": 2}
        manifest = images_in_memory(images).manifest()
        return describe(manifest, space, encode_spec(Path(), **{**facts, **changed})).identity

    changed = [
        identity(),
        identity(images=4),
        identity(space=LatentSpace("b" * 64, "AutoencoderKL", 4, 2, 0.3611, 0.1159, True)),
        identity(space=LatentSpace("a" * 64, "AutoencoderKL", 4, 2, 0.5, 0.1159, True)),
        identity(resolution=8),
        identity(dtype="float32"),
    ]
    monkeypatch.setattr("harness.data.latents.encode.DECODING", "next")
    changed.append(identity())
    assert len(set(changed)) == len(changed)
    monkeypatch.undo()
    assert identity(images_per_shard=1) == identity()


class Rows(Dataset[Tensor]):
    def __init__(self, cache: LatentCache) -> None:
        self.cache = cache

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, row: int) -> Tensor:
        return self.cache.moments(row, mirrored=True)


def test_forked_loaders_read_what_the_parent_reads(build: Callable[..., LatentCache]) -> None:
    cache = build()
    expected = torch.stack([cache.moments(row, mirrored=True) for row in range(IMAGES)])
    loader = DataLoader(Rows(cache), batch_size=7, num_workers=2, multiprocessing_context="fork")
    assert torch.equal(torch.cat(list(loader)), expected)


def test_a_copy_by_pickle_reads_the_same(build: Callable[..., LatentCache]) -> None:
    cache = build()
    expected = cache.moments(7, mirrored=False)
    copy = pickle.loads(pickle.dumps(cache))
    assert torch.equal(copy.moments(7, mirrored=False), expected)
    assert copy.identity == cache.identity


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_row_is_read_without_its_shard(
    tmp_path: Path, images_in_memory: Callable[..., Any]
) -> None:
    space = LatentSpace("a" * 64, "AutoencoderKL", 8, 2, 1.0, 0.0, stochastic=True)
    manifest = images_in_memory(100).manifest()
    wanted = describe(
        manifest,
        space,
        encode_spec(tmp_path, resolution=128, dtype="float32", images_per_shard=100),
    )
    cache = begin_cache(tmp_path / "large", wanted, manifest)
    moments = torch.zeros(100, 2, *space.moments_shape(128))
    write_shard(shard(cache, 0), cache.shard_facts(0), moments)
    cache.moments(50, mirrored=False)

    resident, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            ours = line.endswith(str(shard(cache, 0)))
        elif ours and line.startswith("Rss:"):
            resident += 1024 * int(line.split()[1])
    assert 0 < resident < shard(cache, 0).stat().st_size / 20


def first_row(cache: LatentCache, number: int) -> int:
    return int(cache.sharding.rows[number][0])


def test_a_changed_bit_is_found_with_its_shard_and_image(
    build: Callable[..., LatentCache],
) -> None:
    cache = build()
    row = int(cache.sharding.rows[1][2])
    path = shard(cache, 1)
    content = bytearray(path.read_bytes())
    start = content.index(stored(row)[1].half().numpy().tobytes())
    content[start + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="shard-00001.safetensors is damaged") as raised:
        cache.moments(row, mirrored=True)
    assert cache.manifest.images[row].id in str(raised.value)
    assert AGAIN in str(raised.value)
    # Its mirror image is whole.
    cache.moments(row, mirrored=False)


@pytest.mark.parametrize("left", [0, 5, 300, 0.5, -1])
def test_a_shard_cut_short_is_named(build: Callable[..., LatentCache], left: float) -> None:
    cache = build()
    size = shard(cache, 2).stat().st_size
    os.truncate(shard(cache, 2), int(left * size) if left == 0.5 else int(left) % size)
    with pytest.raises(UserError, match="shard-00002.safetensors is cut short") as raised:
        cache.moments(first_row(cache, 2), mirrored=False)
    assert AGAIN in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_shard_is_named_and_counted(build: Callable[..., LatentCache]) -> None:
    cache = build()
    shard(cache, 1).unlink()
    assert cache.missing_shards == (1,)
    assert cache.missing_shards
    with pytest.raises(UserError, match="shard-00001.safetensors is missing: run"):
        cache.moments(first_row(cache, 1), mirrored=False)
    cache.moments(first_row(cache, 0), mirrored=False)


def test_a_shard_of_another_autoencoder_is_refused(build: Callable[..., LatentCache]) -> None:
    cache = build()
    other = build(
        name="other", space=LatentSpace("b" * 64, "AutoencoderKL", 4, 2, 0.3611, 0.1159, True)
    )
    shutil.copy(shard(other, 0), shard(cache, 0))
    expected = r"shard-00000.safetensors is of another autoencoder \(b{12}\) .* \(a{12}\): delete"
    with pytest.raises(UserError, match=expected):
        cache.moments(first_row(cache, 0), mirrored=False)


def test_a_shard_of_another_type_is_refused(build: Callable[..., LatentCache]) -> None:
    cache, other = build(), build("float32", name="other")
    shutil.copy(shard(other, 0), shard(cache, 0))
    with pytest.raises(UserError, match="shard-00000.safetensors is of another cache"):
        cache.moments(first_row(cache, 0), mirrored=False)


def test_a_shard_under_the_name_of_another_is_refused(build: Callable[..., LatentCache]) -> None:
    cache = build()
    shutil.copy(shard(cache, 1), shard(cache, 0))
    with pytest.raises(UserError, match="shard-00000.safetensors holds other images") as raised:
        cache.moments(first_row(cache, 0), mirrored=False)
    assert AGAIN in str(raised.value)


def test_a_shard_with_other_shapes_is_refused(build: Callable[..., LatentCache]) -> None:
    cache = build()
    path = shard(cache, 0)
    count = len(cache.sharding.rows[0])
    tensors = {
        "moments": torch.zeros(count, 2, 8, 3, 2, dtype=torch.float16),
        "sha256": torch.zeros(count, 2, 32, dtype=torch.uint8),
    }
    save_file(tensors, path, {"latents": cache.shard_facts(0).as_json()})
    with pytest.raises(UserError, match="shard-00000.safetensors holds .* instead of"):
        cache.moments(first_row(cache, 0), mirrored=False)


@pytest.mark.parametrize("metadata", [None, {"latents": "{"}, {"latents": "3"}, {"other": "{}"}])
def test_a_foreign_file_is_refused(
    build: Callable[..., LatentCache], metadata: dict[str, str] | None
) -> None:
    cache = build()
    tensors = {"moments": torch.zeros(3), "sha256": torch.zeros(3)}
    save_file(tensors, shard(cache, 0), metadata)
    with pytest.raises(UserError, match="shard-00000.safetensors is cut short or damaged"):
        cache.moments(first_row(cache, 0), mirrored=False)


def test_a_folder_without_latents_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no latents.*`python -m harness data encode`"):
        open_cache(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("format", 2, "format"),
        ("shard_sizes", [], "shard_sizes"),
        ("shard_sizes", [-1, 61], "shard_sizes"),
        ("resolution", 10**9, "resolution"),
        ("autoencoder.downsampling", 0, "autoencoder.downsampling"),
        ("autoencoder.latent_channels", 0, "autoencoder.latent_channels"),
        ("autoencoder.scaling_factor", 0.0, "autoencoder.scaling_factor"),
        ("resolution", "6", "resolution"),
        ("dtype", "int8", "dtype"),
        ("surplus", 1, "surplus"),
        ("autoencoder", None, "autoencoder"),
    ],
)
def test_a_description_that_is_none_is_refused(
    build: Callable[..., LatentCache], key: str, value: object, named: str
) -> None:
    folder = build().folder
    path = folder / "cache.json"
    described = json.loads(path.read_text())
    section, _, field = key.rpartition(".")
    (described[section] if section else described)[field] = value
    path.write_text(json.dumps(described))
    with pytest.raises(UserError, match=rf"cache.json does not describe .*{named}") as raised:
        open_cache(folder)
    assert "\n" not in str(raised.value)


def test_metadata_of_a_shard_nested_deep_are_damage(build: Callable[..., LatentCache]) -> None:
    cache = build()
    path = cache.folder / "shard-00000.safetensors"
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata={"latents": "[" * 100_000})
    with pytest.raises(UserError, match=r"shard-00000.safetensors is cut short or damaged"):
        open_cache(cache.folder).moments(first_row(cache, 0), mirrored=False)


def test_a_description_that_is_no_json_is_refused(build: Callable[..., LatentCache]) -> None:
    folder = build().folder
    (folder / "cache.json").write_text('{"format": 1')
    with pytest.raises(UserError, match=r"cache.json does not describe latents"):
        open_cache(folder)


def test_another_manifest_beside_the_latents_is_refused(
    build: Callable[..., LatentCache], images_in_memory: Callable[..., Any]
) -> None:
    from harness.data.manifest import write_manifest

    folder = build().folder
    write_manifest(folder / "manifest.json", images_in_memory(4).manifest())
    with pytest.raises(UserError, match=r"manifest.json has the hash .* restore the manifest"):
        open_cache(folder)


def test_shards_that_the_manifest_does_not_give_are_refused(
    build: Callable[..., LatentCache],
) -> None:
    folder = build().folder
    path = folder / "cache.json"
    described = json.loads(path.read_text())
    described["shard_sizes"] = described["shard_sizes"][::-1]
    path.write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"images of manifest.json are not those of its shards"):
        open_cache(folder)


IDS = [f"n{number % 7:08}/image-{number}é.JPEG" for number in range(1000)]


def test_each_image_is_in_one_place() -> None:
    sharding = Sharding(IDS, 13)
    assert sorted(np.concatenate(sharding.rows).tolist()) == list(range(1000))
    for row in range(1000):
        assert sharding.rows[sharding.shard[row]][sharding.place[row]] == row


def test_a_shard_follows_from_the_id_alone() -> None:
    sharding = Sharding(IDS, 13)
    for row, image_id in enumerate(IDS):
        expected = int(hashlib.sha256(image_id.encode()).hexdigest()[:16], 16) % 13
        assert sharding.shard[row] == expected


def test_places_do_not_depend_on_the_order_of_the_list() -> None:
    shuffled = random.Random(0).sample(IDS, len(IDS))
    first, second = Sharding(IDS, 13), Sharding(shuffled, 13)
    for rows, others in zip(first.rows, second.rows, strict=True):
        held = [IDS[row] for row in rows]
        assert held == [shuffled[row] for row in others]
        assert held == sorted(held)


def test_shards_are_of_similar_size() -> None:
    sizes = Sharding(IDS, 10).sizes
    assert sum(sizes) == 1000
    # Six standard deviations of a binomial distribution.
    assert all(abs(size - 100) < 57 for size in sizes)


def test_a_shard_may_be_empty() -> None:
    sharding = Sharding(IDS[:2], 50)
    assert sorted(sharding.sizes)[-2:] == [1, 1]
    assert sum(sharding.sizes) == 2


KL = LatentSpace("0" * 64, "AutoencoderKL", 4, 8, 0.3611, 0.1159, stochastic=True)


DC = replace(KL, class_name="AutoencoderDC", stochastic=False)


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def moments(*, scale: float = 1.0) -> Tensor:
    """Log-variances of a large scale lie outside of what is allowed."""
    return scale * torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_a_sample_is_that_of_diffusers_distribution_scaled(scale: float) -> None:
    drawn = DiagonalGaussianDistribution(moments(scale=scale)).sample(stream())
    ours = KL.sample(moments(scale=scale), stream())
    torch.testing.assert_close(ours, (drawn - 0.1159) * 0.3611, rtol=0, atol=0)


def test_one_image_is_sampled_as_a_batch_of_one() -> None:
    one = moments()[:1]
    assert torch.equal(KL.sample(one[0], stream()), KL.sample(one, stream())[0])


def test_a_latent_without_a_distribution_is_scaled_and_draws_nothing() -> None:
    untouched = stream()
    latent = torch.randn(4, 5, 5)
    assert torch.equal(DC.sample(latent, untouched), (latent - 0.1159) * 0.3611)
    assert torch.equal(untouched.get_state(), stream().get_state())


def test_the_decoder_takes_what_was_scaled_back_in_its_units() -> None:
    latent = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(DC.unscaled(DC.sample(latent, stream())), latent)
