"""Encoding the images of a manifest, by as many processes side by side as run it on one folder.

Each takes a shard that nobody else works on, writes it whole and goes on. So a process that is
killed costs the shard it was at, which another or the next run takes over; finished shards are
never made again. A shard is always encoded from its first image in batches of one size, the last
one filled up, so that its bytes depend on neither interruptions nor the number of processes.
They are not bitwise the same on another device or with another version of PyTorch, and may differ
in the last bit with another batch size, for which libraries may choose other kernels.

The first process makes the folder with its description, and the others join it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from harness.data.decoding import DECODING, read_checked_image
from harness.data.latents.autoencoder import Autoencoder
from harness.data.latents.cache import (
    DESCRIPTION,
    MANIFEST,
    STORAGE,
    CacheDescription,
    LatentCache,
    LatentSpace,
    Sharding,
    StorageType,
    read_description,
)
from harness.data.latents.shard import shard_name, write_shard
from harness.data.manifest import Manifest, ManifestImage, write_manifest
from harness.data.sources.base import Source
from harness.data.verify import check_sizes
from harness.machine.files import full_disk_as_user_error, write_text
from harness.processes.lock import held
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from models.errors import UserError, one_line

LOCKS = ".locks"
"""A folder with a file for each shard that was worked on; the kernel frees a lock whose holder
dies, and the files stay, as removing one could let two processes hold the same lock."""


def describe(
    manifest: Manifest,
    autoencoder: LatentSpace,
    *,
    resolution: int,
    decoding: str,
    dtype: StorageType,
    images_per_shard: int,
) -> CacheDescription:
    """What a new cache says of itself.

    Raises:
        UserError: the resolution does not fit the autoencoder.
    """
    autoencoder.latent_shape(resolution)
    ids = [image.id for image in manifest.images]
    shards = math.ceil(len(ids) / images_per_shard)
    facts = {field.name: getattr(autoencoder, field.name) for field in fields(LatentSpace)}
    return CacheDescription(
        manifest_name=manifest.name,
        manifest_hash=manifest.hash,
        resolution=resolution,
        decoding=decoding,
        dtype=dtype,
        shard_sizes=Sharding(ids, shards).sizes,
        autoencoder=LatentSpace(**facts),
    )


def begin_cache(
    folder: Path,
    wanted: CacheDescription,
    manifest: Manifest,
    on_progress: ProgressListener = ignore_progress,
) -> LatentCache:
    """The cache in a folder: a new one, or the one that is there, which keeps its own shards.

    Any number of processes may begin at once; where they want different things, one wins. What
    `on_progress` raises ends the wait for another one.

    Raises:
        UserError: the folder holds something else, and nothing was written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a folder for the latents")
    # Listed before the description is looked for, which is there before any shard is.
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not (folder / DESCRIPTION).is_file():
        foreign = sorted(name for name in present - {MANIFEST} if not name.startswith("."))
        if foreign:
            raise UserError(
                f"{folder} holds {foreign[0]}, but no {DESCRIPTION}: name an empty folder for the "
                "latents, or the one of a cache"
            )
        (folder / LOCKS).mkdir(parents=True, exist_ok=True)
        waits = Progress("wait", 0, 1, "waiting for another process to begin the cache")
        with held(folder / LOCKS / f"{DESCRIPTION}.lock", lambda: on_progress(waits)):
            if not (folder / DESCRIPTION).is_file():
                write_manifest(folder / MANIFEST, manifest)
                write_text(folder / DESCRIPTION, wanted.model_dump_json(indent=2) + "\n")
    description = read_description(folder)
    description.check_same(wanted, folder)
    return LatentCache(folder, description, manifest)


STAGE = "encode"

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Encoded:
    """What a call did."""

    cache: LatentCache
    images: int
    """Encoded by this call; others may have encoded more, before it or beside it."""
    seconds: float


def encode(
    source: Source,
    manifest: Manifest,
    autoencoder: Autoencoder,
    folder: Path,
    *,
    resolution: int,
    images_per_shard: int = 512,
    dtype: StorageType = "float16",
    batch_size: int = 32,
    loaders: int = 4,
    on_progress: ProgressListener = ignore_progress,
) -> Encoded:
    """Encode all images and their mirror images, going on where earlier calls stopped.

    Args:
        source: of the images.
        manifest: which of them.
        autoencoder: that encodes.
        folder: of the cache; empty, new, or begun with the same manifest, autoencoder, resolution,
            decoding and dtype.
        resolution: pixels a side.
        images_per_shard: about how many, of a new cache; one that was begun keeps its own.
        dtype: that mean and log-variance, or the latent, are stored in.
        batch_size: images encoded at once.
        loaders: threads that read and decode images ahead of the autoencoder.
        on_progress: told the images that are done, by all processes, and the number of all.

    Raises:
        UserError: the folder holds something else or cannot be written to; an image is missing, is
            not that of the manifest or cannot be decoded; or a latent is not finite or too large
            for `dtype`.
    """
    counts = {"images_per_shard": images_per_shard, "batch_size": batch_size, "loaders": loaders}
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"{name} is {count}, but must be 1 or more")
    began = time.perf_counter()
    wanted = describe(
        manifest,
        autoencoder,
        resolution=resolution,
        decoding=DECODING,
        dtype=dtype,
        images_per_shard=images_per_shard,
    )
    check_sizes(manifest, source)
    with _writing_to(folder):
        cache = begin_cache(folder, wanted, manifest, on_progress)
        with ThreadPoolExecutor(loaders) as pool:
            encoder = _Encoder(source, cache, autoencoder, batch_size, loaders, pool, on_progress)
            images = encoder.run()
    return Encoded(cache, images, time.perf_counter() - began)


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """Context in which latents are written. Images that cannot be read are mistakes already."""
    try:
        with full_disk_as_user_error(f"the latents in {folder}"):
            yield
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({one_line(error)}): name a folder that can be written to"
        ) from error


class _Encoder:
    def __init__(
        self,
        source: Source,
        cache: LatentCache,
        autoencoder: Autoencoder,
        batch_size: int,
        loaders: int,
        pool: ThreadPoolExecutor,
        on_progress: ProgressListener,
    ) -> None:
        self.source = source
        self.cache = cache
        self.autoencoder = autoencoder
        self.batch_size = batch_size
        self.ahead = batch_size + loaders
        self.pool = pool
        self.on_progress = on_progress
        self.sizes = cache.description.shard_sizes
        self.dtype = STORAGE[cache.description.dtype]

    def run(self) -> int:
        """Encode what nobody else does, until all is there; how many images that were."""
        for number in set(range(len(self.sizes))) - set(self.cache.missing_shards):
            if self.sizes[number]:
                self.cache.open_shard(number)
        images = 0
        while missing := self.cache.missing_shards:
            self._report(missing)
            claimed = False
            for number in missing:
                with self._claimed(number) as ours:
                    if ours:
                        self._encode_shard(number)
                        images += self.sizes[number]
                        claimed = True
            if not claimed:
                others = f"waiting for {len(missing)} shards that other processes encode"
                self._report(missing, note=others)
                time.sleep(_POLL_SECONDS)
        self._report(())
        return images

    @contextmanager
    def _claimed(self, number: int) -> Iterator[bool]:
        """Holds a shard that is still to be made; False where another process does, or has."""
        lock = FileLock(self.cache.folder / LOCKS / f"{shard_name(number)}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            # It may have been made since the folder was listed.
            yield not (self.cache.folder / shard_name(number)).exists()
        finally:
            lock.release()

    def _encode_shard(self, number: int) -> None:
        path = self.cache.folder / shard_name(number)
        # What a holder that was killed had begun to write; the lock says that nobody still does.
        for leftover in path.parent.glob(f".{path.stem}-*"):
            leftover.unlink(missing_ok=True)
        missing = self.cache.missing_shards
        self._report(missing)
        images = [self.cache.manifest.images[row] for row in self.cache.sharding.rows[number]]
        shape = self.autoencoder.moments_shape(self.cache.resolution)
        moments = torch.empty((len(images), 2, *shape), dtype=self.dtype)
        pixels = self._decoded(images)
        for start in range(0, len(images), self.batch_size):
            part = images[start : start + self.batch_size]
            batch = torch.from_numpy(np.stack([next(pixels) for _ in part]))
            # (B, H, W, 3) -> (B, 3, H, W)
            batch = batch.permute(0, 3, 1, 2).contiguous()
            stop = start + len(part)
            moments[start:stop, 0] = self._moments(batch, part)
            moments[start:stop, 1] = self._moments(batch.flip(-1), part)
            self._report(missing, encoded=stop)
        write_shard(path, self.cache.shard_facts(number), moments)

    def _decoded(self, images: list[ManifestImage]) -> Iterator[NDArray[np.uint8]]:
        """(H, W, 3) of each, read and decoded ahead by the pool."""

        def read(image: ManifestImage) -> NDArray[np.uint8]:
            cache = self.cache
            return read_checked_image(self.source, cache.manifest, image, cache.resolution)

        return _ahead(self.pool, read, images, self.ahead)

    def _moments(self, batch: Tensor, images: list[ManifestImage]) -> Tensor:
        """(B, C', h, w) in the type of the cache, of (B, 3, H, W)."""
        filled = torch.cat([batch, batch[-1:].expand(self.batch_size - len(batch), -1, -1, -1)])
        try:
            moments = self.autoencoder.encode(filled)[: len(batch)].cpu()
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise UserError(
                f"the memory does not hold a batch of {self.batch_size} images of "
                f"{self.cache.resolution} pixels a side: encode with a smaller --batch-size"
            ) from error
        stored = moments.to(self.dtype)
        fine = stored.isfinite().flatten(1).all(dim=1)
        if fine.all():
            return stored
        first = int((~fine).nonzero()[0])
        image = images[first].id
        if not moments[first].isfinite().all():
            raise UserError(
                f"the autoencoder gives values that are not finite for {image}: its weights are "
                "damaged, or not made for images"
            )
        raise UserError(
            f"{image} has a latent of up to {moments[first].abs().max():.3g}, which float16 cannot "
            "hold: encode with --dtype float32 into an empty folder"
        )

    def _report(self, missing: tuple[int, ...], encoded: int = 0, note: str = "") -> None:
        total = sum(self.sizes)
        done = total - sum(self.sizes[number] for number in missing) + encoded
        self.on_progress(Progress(STAGE, done, total, note))


def _ahead(
    pool: ThreadPoolExecutor,
    work: Callable[[ManifestImage], NDArray[np.uint8]],
    items: list[ManifestImage],
    ahead: int,
) -> Iterator[NDArray[np.uint8]]:
    """`work` of each, in order, with at most `ahead` results that nobody has asked for yet."""
    waiting: deque[Future[NDArray[np.uint8]]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
