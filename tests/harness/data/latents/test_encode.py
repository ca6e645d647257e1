from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness.data.latents import encode as module
from harness.data.latents.autoencoder import load_autoencoder
from harness.data.latents.cache import LatentCache, open_cache
from harness.data.latents.encode import encode
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from models.errors import UserError
from tests.support.latents import encode_spec

Build = Callable[..., Any]


def encoded(
    source: Any,
    autoencoder: Any,
    folder: Path,
    on_progress: ProgressListener = ignore_progress,
    **options: Any,
) -> LatentCache:
    encode(source, source.manifest(), autoencoder, encode_spec(folder, **options), on_progress)
    return open_cache(folder)


def encoded_in_part(source: Any, autoencoder: Any, folder: Path, shards: int) -> LatentCache:
    """Encode until so many shards are there, and then be interrupted."""

    def stop(progress: Progress) -> None:
        if len(list(folder.glob("shard-*"))) == shards:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoded(source, autoencoder, folder, on_progress=stop)
    return open_cache(folder)


def files_of(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Content, when it was written, and which file it is, of all that is there."""
    return {
        str(path.relative_to(folder)): (
            path.read_bytes(),
            path.stat().st_mtime_ns,
            path.stat().st_ino,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pixels_of(source: Any, image_id: str) -> torch.Tensor:
    """(1, 3, H, W); the images have the resolution that is encoded."""
    pixels = np.asarray(Image.open(io.BytesIO(source.files[image_id])))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]


@pytest.mark.parametrize("kind", ["kl", "dc"])
def test_rows_are_what_the_autoencoder_gives_of_image_and_mirror_image(
    kind: str,
    kl_folder: Build,
    dc_folder: Path,
    images_in_memory: Build,
    tmp_path: Path,
) -> None:
    autoencoder = load_autoencoder(str(kl_folder() if kind == "kl" else dc_folder), "cpu")
    source = images_in_memory(13, side=16)
    cache = encoded(source, autoencoder, tmp_path, resolution=16, dtype="float32")
    for row, image in enumerate(cache.manifest.images):
        pixels = pixels_of(source, image.id)
        for mirrored, seen in ((False, pixels), (True, pixels.flip(-1))):
            expected = autoencoder.encode(seen)[0]
            torch.testing.assert_close(cache.moments(row, mirrored), expected, rtol=1e-4, atol=1e-5)
        assert not torch.equal(cache.moments(row, False), cache.moments(row, True))


def test_half_precision_is_that_of_the_same_values_rounded(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    source = images_in_memory(13)
    exact = encoded(source, linear_autoencoder(), tmp_path / "exact", dtype="float32")
    half = encoded(source, linear_autoencoder(), tmp_path / "half")
    for row in range(13):
        expected = exact.moments(row, mirrored=True).half().float()
        assert torch.equal(half.moments(row, mirrored=True), expected)


@pytest.mark.parametrize("kind", ["kl", "dc"])
def test_bytes_of_an_image_do_not_depend_on_the_images_beside_it(
    kind: str, kl_folder: Build, dc_folder: Path, images_in_memory: Build, tmp_path: Path
) -> None:
    autoencoder = load_autoencoder(str(kl_folder() if kind == "kl" else dc_folder), "cpu")
    source = images_in_memory(13, side=16)
    options = {"resolution": 16, "dtype": "float32"}
    one = encoded(source, autoencoder, tmp_path / "one", images_per_shard=99, **options)
    many = encoded(source, autoencoder, tmp_path / "many", images_per_shard=2, **options)
    assert len(one.sharding.rows) < len(many.sharding.rows)
    for row in range(13):
        assert torch.equal(one.moments(row, False), many.moments(row, False))


def test_the_autoencoder_sees_batches_of_one_size(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    autoencoder = linear_autoencoder()
    encoded(images_in_memory(13), autoencoder, tmp_path)
    assert set(autoencoder.batches) == {4}


def test_the_same_images_in_another_order_give_the_same_files(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    encoded(images_in_memory(30), linear_autoencoder(), tmp_path / "a", loaders=1)
    encoded(images_in_memory(30), linear_autoencoder(), tmp_path / "b", loaders=5)
    first, second = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    assert {name: file[0] for name, file in first.items()} == {
        name: file[0] for name, file in second.items()
    }


def test_a_call_that_stopped_is_resumed_without_reading_an_image_again(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    source = images_in_memory(60)
    cache = encoded_in_part(source, linear_autoencoder(), tmp_path, 2)
    assert len(cache.missing_shards) == 4
    before = files_of(tmp_path)
    cache = encoded(source, linear_autoencoder(), tmp_path)
    assert not cache.missing_shards
    after = files_of(tmp_path)
    assert before.items() <= after.items()
    assert sorted(source.reads) == sorted(source.files)
    # Nothing is left to do.
    encoded(source, linear_autoencoder(), tmp_path)
    assert files_of(tmp_path) == after


def test_a_shard_that_was_deleted_is_made_again_alike(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    source = images_in_memory(30)
    encoded(source, linear_autoencoder(), tmp_path)
    path = tmp_path / "shard-00001.safetensors"
    before = path.read_bytes()
    path.unlink()
    encoded(source, linear_autoencoder(), tmp_path)
    assert path.read_bytes() == before


def test_a_damaged_shard_is_found_before_anything_is_encoded(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    source = images_in_memory(30)
    encoded(source, linear_autoencoder(), tmp_path)
    os.truncate(tmp_path / "shard-00001.safetensors", 1000)
    (tmp_path / "shard-00000.safetensors").unlink()
    source.reads.clear()
    with pytest.raises(UserError, match="shard-00001.safetensors is cut short"):
        encoded(source, linear_autoencoder(), tmp_path)
    assert source.reads == []


def test_leftovers_of_a_killed_writer_are_removed(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    source = images_in_memory(30)
    encoded_in_part(source, linear_autoencoder(), tmp_path, 0)
    (tmp_path / ".shard-00001-abcd1234.safetensors").write_bytes(b"half")
    encoded(source, linear_autoencoder(), tmp_path)
    assert not list(tmp_path.glob(".shard*"))


def test_progress_counts_images_up_to_all(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    source, seen = images_in_memory(25), []
    encoded_in_part(source, linear_autoencoder(), tmp_path, 1)
    cache = encoded(source, linear_autoencoder(), tmp_path, on_progress=seen.append)
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert done[0] == len(cache.sharding.rows[0])
    assert seen[-1] == Progress("encode", 25, 25)


def test_more_shards_than_images_leave_no_empty_file(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    cache = encoded(images_in_memory(5), linear_autoencoder(), tmp_path, images_per_shard=1)
    assert 0 in cache.sharding.sizes
    assert not cache.missing_shards
    assert len(list(tmp_path.glob("shard-*"))) == sum(size > 0 for size in cache.sharding.sizes)
    assert all(cache.moments(row, mirrored=True).shape == (2, 2, 2) for row in range(5))


def test_a_cache_that_was_begun_keeps_its_shards(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    source = images_in_memory(30)
    encoded_in_part(source, linear_autoencoder(), tmp_path, 1)
    cache = encoded(source, linear_autoencoder(), tmp_path, images_per_shard=2)
    assert len(cache.sharding.rows) == 3
    assert not cache.missing_shards


def another(what: str, source: Any, autoencoder: Any) -> tuple[Any, Any, dict[str, Any]]:
    match what:
        case "autoencoder":
            return source, replace(autoencoder, identity="f" * 64), {}
        case "scale":
            return source, replace(autoencoder, scaling_factor=0.75), {}
        case "manifest":
            fewer = type(source)(dict(list(source.files.items())[:20]))
            return fewer, autoencoder, {}
        case "resolution":
            return source, autoencoder, {"resolution": 16}
        case "dtype":
            return source, autoencoder, {"dtype": "float32"}
        case "decoding":
            return source, autoencoder, {}
    raise AssertionError(what)


@pytest.mark.parametrize(
    ("what", "values"),
    [
        ("autoencoder", "the autoencoder's identity d0ff5974b6aa... instead of ffffffffffff..."),
        ("scale", "the autoencoder's scaling_factor 0.5 instead of 0.75"),
        ("manifest", "the manifest "),
        ("resolution", "the resolution 8 instead of 16"),
        ("dtype", "the dtype float16 instead of float32"),
        ("decoding", "instead of next"),
    ],
)
def test_another_cache_is_refused_untouched(
    what: str,
    values: str,
    linear_autoencoder: Build,
    images_in_memory: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = images_in_memory(30)
    encoded_in_part(first, linear_autoencoder(), tmp_path, 1)
    before = files_of(tmp_path)
    source, autoencoder, options = another(what, first, linear_autoencoder())
    if what == "decoding":
        monkeypatch.setattr(module, "DECODING", "next")
    with pytest.raises(UserError) as raised:
        encoded(source, autoencoder, tmp_path, **options)
    assert f"{tmp_path} holds latents of " in str(raised.value)
    assert values in str(raised.value)
    assert "\n" not in str(raised.value)
    assert files_of(tmp_path) == before


def test_a_folder_of_something_else_is_refused_untouched(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UserError, match=r"holds photo.jpg, but no cache.json"):
        encoded(images_in_memory(3), linear_autoencoder(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
    with pytest.raises(UserError, match=r"photo.jpg is a file"):
        encoded(images_in_memory(3), linear_autoencoder(), tmp_path / "photo.jpg")


def test_a_begin_that_was_killed_before_its_description_is_begun_again(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    source = images_in_memory(3)
    encoded_in_part(source, linear_autoencoder(), tmp_path, 0)
    (tmp_path / "cache.json").unlink()
    (tmp_path / ".cache-abcd.json").write_text("{")
    assert not encoded(source, linear_autoencoder(), tmp_path).missing_shards


@pytest.mark.parametrize("resolution", [0, -8, 7, 10**9])
def test_a_resolution_that_cannot_be_encoded_is_refused_before_anything_is_written(
    resolution: int, linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"resolution is {resolution}, .* up to 8192"):
        encoded(images_in_memory(3), linear_autoencoder(), tmp_path / "x", resolution=resolution)
    assert not (tmp_path / "x").exists()


def test_a_batch_that_memory_does_not_hold_is_told(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    class Full(type(linear_autoencoder())):
        def encode(self, images: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 9 GiB")

    autoencoder = linear_autoencoder()
    full = Full(**{key: getattr(autoencoder, key) for key in autoencoder.__dataclass_fields__})
    with pytest.raises(UserError, match="a batch of 4 images .*: .* smaller --batch-size"):
        encoded(images_in_memory(3), full, tmp_path)


def test_another_image_of_the_same_size_is_named(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    source = images_in_memory(30)
    manifest = source.manifest()
    changed = bytearray(source.files["b/000010.png"])
    changed[-1] ^= 1
    source.files["b/000010.png"] = bytes(changed)
    with pytest.raises(UserError) as raised:
        encode(source, manifest, linear_autoencoder(), encode_spec(tmp_path))
    found = hashlib.sha256(bytes(changed)).hexdigest()
    for part in ("b/000010.png in memory is not the image", "memory/v1", found[:12]):
        assert part in str(raised.value)


@pytest.mark.parametrize("fault", ["missing", "another size"])
def test_a_source_without_the_images_is_refused_before_anything_is_written(
    fault: str, linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    source = images_in_memory(30)
    manifest = source.manifest()
    if fault == "missing":
        del source.files["b/000010.png"]
    else:
        source.files["b/000010.png"] += b"\0"
    with pytest.raises(UserError, match="b/000010.png"):
        encode(source, manifest, linear_autoencoder(), encode_spec(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    assert source.reads == []


def test_an_image_that_vanishes_under_way_is_named(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    source = images_in_memory(30)
    manifest, entries = source.manifest(), source.entries()
    del source.files["b/000010.png"]
    source.entries = lambda: entries
    with pytest.raises(UserError, match=r"memory lacks b/000010.png"):
        encode(source, manifest, linear_autoencoder(), encode_spec(tmp_path))


def test_an_image_that_cannot_be_decoded_is_named(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    source = images_in_memory(30)
    source.files["b/000010.png"] = b"nothing that could be an image"
    with pytest.raises(UserError, match=r"b/000010.png in memory cannot be decoded") as raised:
        encoded(source, linear_autoencoder(), tmp_path)
    assert "\n" not in str(raised.value)


def test_values_too_large_for_half_precision_are_refused_and_kept_in_single(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    source, large = images_in_memory(5), linear_autoencoder(weight=1e6)
    with pytest.raises(UserError, match=r"[abc]/00000\d.png has a latent .* --dtype float32"):
        encoded(source, large, tmp_path / "half")
    assert not list((tmp_path / "half").glob("shard-*"))
    cache = encoded(source, large, tmp_path / "single", dtype="float32")
    assert cache.moments(0, mirrored=False).max() > 65504


def test_values_that_are_not_finite_are_refused(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    broken = linear_autoencoder(weight=math.nan)
    with pytest.raises(UserError, match=r"not finite for [abc]/00000\d.png"):
        encoded(images_in_memory(5), broken, tmp_path, dtype="float32")


def test_a_resolution_that_does_not_fit_is_refused_before_anything_is_written(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="the resolution is 10"):
        encoded(images_in_memory(5), linear_autoencoder(), tmp_path / "new", resolution=10)
    assert not (tmp_path / "new").exists()


def test_images_are_decoded_ahead_by_no_more_than_a_batch_and_the_loaders(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    source = images_in_memory(60)
    most_ahead, taken = 0, 0

    def look() -> None:
        nonlocal most_ahead, taken
        taken += 1
        most_ahead = max(most_ahead, len(source.reads) - 4 * ((taken + 1) // 2))

    encoded(source, linear_autoencoder(before=look), tmp_path, images_per_shard=999, loaders=3)
    assert 0 < most_ahead <= 4 + 3


def test_the_description_can_be_read_by_people(
    linear_autoencoder: Build, images_in_memory: Build, tmp_path: Path
) -> None:
    cache = encoded(images_in_memory(25), linear_autoencoder(), tmp_path)
    described = json.loads((tmp_path / "cache.json").read_text())
    assert described["manifest_hash"] == cache.manifest.hash
    assert described["resolution"] == 8
    assert described["dtype"] == "float16"
    assert sum(described["shard_sizes"]) == 25
    assert described["autoencoder"] == {
        "identity": hashlib.sha256(b"1.0").hexdigest(),
        "class_name": "Linear",
        "latent_channels": 1,
        "downsampling": 4,
        "scaling_factor": 0.5,
        "shift_factor": 0.25,
        "stochastic": True,
    }
