"""Several encoders on one folder, and encoders that are killed.

They are forked, so that they start within milliseconds and a kill can hit any moment.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from harness.data import decoding
from harness.data.latents import shard
from harness.data.latents.cache import LatentCache, open_cache
from harness.data.latents.encode import encode
from harness.data.manifest import Manifest, ManifestClass, ManifestImage
from harness.processes.progress import Progress, ignore_progress
from models.errors import UserError
from tests.support.latents import encode_spec

Build = Callable[..., Any]


FORK = multiprocessing.get_context("fork")


IMAGES = 600


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the shards of others looks more often than encoders of weeks need."""
    monkeypatch.setattr("harness.data.latents.encode._POLL_SECONDS", 0.02)


@pytest.fixture(scope="module")
def source(images_in_memory: Build) -> Any:
    return images_in_memory(IMAGES)


@pytest.fixture(scope="module")
def undisturbed(
    source: Any, linear_autoencoder: Build, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(source, linear_autoencoder(), folder)
    return folder


def run(source: Any, autoencoder: Any, folder: Path) -> int:
    """How many images this call encoded."""
    spec = encode_spec(folder, images_per_shard=30, batch_size=8)
    return encode(source, source.manifest(), autoencoder, spec).images


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    process = FORK.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def run_and_tell(source: Any, autoencoder: Any, folder: Path, results: Connection) -> None:
    torch.set_num_threads(1)
    try:
        results.send(run(source, autoencoder, folder))
    except UserError as error:
        results.send(str(error))


def shards_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("shard-*")}


def ids_in_files(cache: LatentCache) -> list[str]:
    ids: list[str] = []
    for path in cache.folder.glob("shard-*"):
        with safe_open(path, framework="np") as file:
            ids += json.loads(file.metadata()["latents"])["ids"]
    return ids


def assert_same_as(folder: Path, undisturbed: Path) -> None:
    cache = open_cache(folder)
    assert not cache.missing_shards
    assert sorted(ids_in_files(cache)) == [image.id for image in cache.manifest.images]
    assert shards_of(folder) == shards_of(undisturbed)
    assert not list(folder.glob(".shard*"))


def test_kills_at_any_moment_neither_lose_nor_repeat_an_image(
    source: Any, linear_autoencoder: Build, undisturbed: Path, tmp_path: Path
) -> None:
    moments = random.Random(0)
    receive, send = FORK.Pipe(duplex=False)
    # About a second for all of it.
    slow = linear_autoencoder(before=lambda: time.sleep(0.005))
    kept: dict[str, int] = {}
    kills = 0
    while True:
        process = start(run_and_tell, source, slow, tmp_path, send)
        process.join(moments.uniform(0.02, 0.3))
        if process.exitcode is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        written = {path.name: path.stat().st_ino for path in tmp_path.glob("shard-*")}
        # A finished shard is never made again.
        assert kept.items() <= written.items()
        kept = written
    assert process.exitcode == 0
    assert kills >= 4
    assert 0 < receive.recv() < IMAGES
    assert_same_as(tmp_path, undisturbed)


def test_a_kill_in_the_middle_of_a_file_leaves_no_part_of_it(
    source: Any,
    linear_autoencoder: Build,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write_half(tensors: Any, path: Path, metadata: Any) -> None:
        save_file(tensors, path, metadata)
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr(shard, "save_file", write_half)
        victim = start(run, source, linear_autoencoder(), tmp_path)
        victim.join(30)
    assert victim.exitcode == -signal.SIGKILL
    assert not list(tmp_path.glob("shard-*"))
    assert run(source, linear_autoencoder(), tmp_path) == IMAGES
    assert_same_as(tmp_path, undisturbed)


def test_encoders_side_by_side_share_the_images(
    source: Any, linear_autoencoder: Build, undisturbed: Path, tmp_path: Path
) -> None:
    receive, send = FORK.Pipe(duplex=False)
    slow = linear_autoencoder(before=lambda: time.sleep(0.003))
    processes = [start(run_and_tell, source, slow, tmp_path, send) for _ in range(3)]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    shares = [receive.recv() for _ in processes]
    # Together they encoded each image once, and nobody was left without work.
    assert sum(shares) == IMAGES
    assert min(shares) > 0
    assert_same_as(tmp_path, undisturbed)


def test_shards_of_a_killed_encoder_are_taken_over_by_one_that_waits(
    source: Any, linear_autoencoder: Build, undisturbed: Path, tmp_path: Path
) -> None:
    receive, send = FORK.Pipe(duplex=False)
    held, hold = FORK.Pipe(duplex=False)

    def stuck() -> None:
        hold.send("at work")
        time.sleep(60)

    victim = start(run_and_tell, source, linear_autoencoder(before=stuck), tmp_path, send)
    assert held.recv() == "at work"
    other = start(run_and_tell, source, linear_autoencoder(), tmp_path, send)
    while len(open_cache(tmp_path).missing_shards) > 1:
        time.sleep(0.01)
    time.sleep(0.1)
    assert other.is_alive()
    os.kill(victim.pid, signal.SIGKILL)
    other.join(30)
    assert other.exitcode == 0
    assert receive.recv() == IMAGES
    assert_same_as(tmp_path, undisturbed)


def test_of_two_autoencoders_that_start_at_once_exactly_one_wins(
    images_in_memory: Build, linear_autoencoder: Build, tmp_path: Path
) -> None:
    source = images_in_memory(60)

    def together(barrier: Barrier, autoencoder: Any, folder: Path, results: Connection) -> None:
        barrier.wait()
        run_and_tell(source, autoencoder, folder, results)

    for attempt in range(5):
        folder = tmp_path / str(attempt)
        receive, send = FORK.Pipe(duplex=False)
        barrier = FORK.Barrier(4)
        processes = [
            start(together, barrier, linear_autoencoder(weight), folder, send)
            for weight in (1.0, 2.0, 1.0, 2.0)
        ]
        for process in processes:
            process.join(30)
            assert process.exitcode == 0
        results = [receive.recv() for _ in processes]
        encoded = [result for result in results if isinstance(result, int)]
        refused = [result for result in results if isinstance(result, str)]
        assert (len(encoded), len(refused)) == (2, 2)
        assert sum(encoded) == 60
        assert all("holds latents of the autoencoder's identity" in text for text in refused)
        cache = open_cache(folder)
        assert not cache.missing_shards
        for number in range(len(cache.sharding.rows)):
            cache.open_shard(number)


MANY_IMAGES = 100_000


CONTENTS = [bytes([number]) for number in range(200)]


"""Of files that decode to their own number."""


def content_of(number: int) -> bytes:
    return CONTENTS[number % len(CONTENTS)]


def manifest() -> Manifest:
    digests = {content: hashlib.sha256(content).hexdigest() for content in CONTENTS}
    images = (
        ManifestImage(f"a/{number:06}", 0, 1, digests[content_of(number)])
        for number in range(MANY_IMAGES)
    )
    return Manifest("many/v1", None, None, (ManifestClass("a", "a"),), tuple(images), ())


@pytest.mark.slow
def test_a_hundred_thousand_images_are_each_encoded_once(
    images_in_memory: Callable[..., Any],
    linear_autoencoder: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        decoding,
        "decode_image",
        lambda content, resolution: np.full((resolution, resolution, 3), content[0], np.uint8),
    )
    source = images_in_memory(0)
    source.files.update({f"a/{number:06}": content_of(number) for number in range(MANY_IMAGES)})
    autoencoder = linear_autoencoder()
    many = manifest()

    def encode_all(on_progress: Callable[[Progress], None]) -> None:
        numbers = {"resolution": 4, "batch_size": 256, "images_per_shard": 512, "loaders": 4}
        spec = encode_spec(tmp_path, dtype="float32", **numbers)
        encode(source, many, autoencoder, spec, on_progress)

    def stop(progress: Progress) -> None:
        if len(list(tmp_path.glob("shard-*"))) == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_all(stop)
    encode_all(ignore_progress)
    assert Counter(source.reads) == Counter(image.id for image in many.images)
    held: Counter[str] = Counter()
    for path in tmp_path.glob("shard-*"):
        with safe_open(path, framework="np") as file:
            held.update(json.loads(file.metadata()["latents"])["ids"])
    assert held == Counter(image.id for image in many.images)
    cache = open_cache(tmp_path)
    for row in range(0, MANY_IMAGES, 997):
        level = content_of(row)[0] / 255
        assert cache.moments(row, mirrored=True).flatten().tolist() == pytest.approx(
            [level, level - 3], abs=1e-6
        )
