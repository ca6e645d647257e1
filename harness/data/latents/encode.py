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
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from harness.data.decoding import DECODING, read_checked_image
from harness.data.latents.autoencoder import Autoencoder, load_autoencoder
from harness.data.latents.cache import (
    DESCRIPTION,
    MANIFEST,
    STORAGE,
    CacheDescription,
    LatentCache,
    LatentSpace,
    Sharding,
    StorageType,
    open_cache,
    read_description,
)
from harness.data.latents.shard import shard_name, write_shard
from harness.data.manifest import Manifest, ManifestImage, read_manifest, write_manifest
from harness.data.sources import open_source
from harness.data.sources.base import Source
from harness.data.verify import check_sizes
from harness.machine.environment import usable_cores
from harness.machine.files import full_disk_as_user_error, remove_leftovers, write_text
from harness.machine.place import choose_device
from harness.processes.jobs import Job, JobEnded, JobEvent, JobProgressed
from harness.processes.lock import held
from harness.processes.pool import run_jobs
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from harness.processes.signals import StopRequest
from models.errors import UserError, one_line

LOCKS = ".locks"
"""A folder with a file for each shard that was worked on; the kernel frees a lock whose holder
dies, and the files stay, as removing one could let two processes hold the same lock."""
_POLL_SECONDS = 0.5
_WORKER = "harness.data.latents.encode:encode_part"


@dataclass(frozen=True)
class EncodeSpec:
    """What to encode, as the command line names it."""

    source: str
    out: str
    """A folder; empty, new, or begun with the same manifest, autoencoder, resolution and dtype."""
    autoencoder: str
    manifest: str
    resolution: int
    """Pixels a side."""
    dtype: StorageType
    """That mean and log-variance, or the latent, are stored in."""
    batch_size: int
    """Images encoded at once."""
    images_per_shard: int
    """About how many, of a new cache; one that was begun keeps its own."""
    loaders: int
    """Threads that read and decode images ahead of the autoencoder."""
    device: str
    """auto, cpu or cuda."""


@dataclass(frozen=True)
class Encoded:
    """What a call did."""

    cache: LatentCache
    images: int
    """Encoded by this call; others may have encoded more, before it or beside it."""
    seconds: float


def run_encode(spec: EncodeSpec, processes: int, on_progress: ProgressListener) -> Encoded:
    """Encode until all images are there, in so many processes on this machine, GPUs in turn.

    Raises:
        UserError: what `encode` refuses; or a process ended and left the cache incomplete.
    """
    if processes == 1:
        return _encode(spec, on_progress)

    def listen(event: JobEvent) -> None:
        if isinstance(event, JobProgressed):
            on_progress(event.progress)
        # The others would run into the same mistake; what is raised here stops them.
        if isinstance(event, JobEnded) and event.result.caused_by_user:
            raise UserError(event.result.reason)

    began = time.perf_counter()
    logs = Path(tempfile.mkdtemp(prefix="harness-encode-"))
    numbers = range(processes)
    try:
        results = run_jobs(
            [Job(f"process {number}", asdict(spec), logs / f"{number}.log") for number in numbers],
            _WORKER,
            workers=processes,
            threads_per_worker=max(1, usable_cores() // processes),
            on_event=listen,
            gpus=() if spec.device == "cpu" else None,
        )
    except BaseException:
        shutil.rmtree(logs)
        raise
    failed = [result for result in results if not result.ok]
    cache = open_cache(Path(spec.out)) if len(failed) < processes else None
    if cache is None or cache.missing_shards:
        raise UserError(
            f"{len(failed)} of {processes} processes ended, the first: {failed[0].reason} (log: "
            f"{failed[0].log_path}); the same command goes on where they stopped"
        )
    shutil.rmtree(logs)
    images = sum(result.value for result in results if result.ok)
    return Encoded(cache, images, time.perf_counter() - began)


def encode_part(payload: Mapping[str, Any], report: ProgressListener, stop: StopRequest) -> int:
    """What a process of several does; how many images it encoded."""
    return _encode(EncodeSpec(**payload), stop.between_batches(report)).images


def _encode(spec: EncodeSpec, on_progress: ProgressListener) -> Encoded:
    manifest = read_manifest(Path(spec.manifest))
    source = open_source(Path(spec.source))
    autoencoder = load_autoencoder(spec.autoencoder, choose_device(spec.device))
    return encode(source, manifest, autoencoder, spec, on_progress)


def encode(
    source: Source,
    manifest: Manifest,
    autoencoder: Autoencoder,
    spec: EncodeSpec,
    on_progress: ProgressListener = ignore_progress,
) -> Encoded:
    """Encode all images and their mirror images, going on where earlier calls stopped.

    Source, manifest and autoencoder are those that `spec` names, opened; `on_progress` is told the
    images that are done, by all processes, and the number of all.

    Raises:
        UserError: the folder holds something else or cannot be written to; an image is missing, is
            not that of the manifest or cannot be decoded; or a latent is not finite or too large
            for the type it is stored in.
    """
    began = time.perf_counter()
    folder = Path(spec.out)
    wanted = describe(manifest, autoencoder, spec)
    check_sizes(manifest, source)
    try:
        with full_disk_as_user_error(f"the latents in {folder}"):
            cache = begin_cache(folder, wanted, manifest, on_progress)
            with ThreadPoolExecutor(spec.loaders) as pool:
                images = _Encoder(source, cache, autoencoder, spec, pool, on_progress).run()
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({one_line(error)}): name a folder that can be written to"
        ) from error
    return Encoded(cache, images, time.perf_counter() - began)


def describe(manifest: Manifest, autoencoder: LatentSpace, spec: EncodeSpec) -> CacheDescription:
    """What a new cache says of itself. Raises a UserError if the resolution does not fit the
    autoencoder."""
    autoencoder.latent_shape(spec.resolution)
    ids = [image.id for image in manifest.images]
    facts = {field.name: getattr(autoencoder, field.name) for field in fields(LatentSpace)}
    return CacheDescription(
        manifest_name=manifest.name,
        manifest_hash=manifest.hash,
        resolution=spec.resolution,
        decoding=DECODING,
        dtype=spec.dtype,
        shard_sizes=Sharding(ids, math.ceil(len(ids) / spec.images_per_shard)).sizes,
        autoencoder=LatentSpace(**facts),
    )


def begin_cache(
    folder: Path,
    wanted: CacheDescription,
    manifest: Manifest,
    on_progress: ProgressListener = ignore_progress,
) -> LatentCache:
    """The cache in a folder: a new one, or the one that is there, which keeps its own shards.

    Any number of processes may begin at once; if they want different things, one wins. What
    `on_progress` raises ends the wait for another one. Raises a UserError if the folder holds
    something else, before anything is written.
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


@dataclass(frozen=True)
class _Encoder:
    source: Source
    cache: LatentCache
    autoencoder: Autoencoder
    spec: EncodeSpec
    pool: ThreadPoolExecutor
    """Reads and decodes images."""
    on_progress: ProgressListener

    @property
    def sizes(self) -> tuple[int, ...]:
        """Images in each shard."""
        return self.cache.description.shard_sizes

    def run(self) -> int:
        """Encode what nobody else does, until all is there; how many images that were."""
        cache = self.cache
        for number in set(range(len(self.sizes))) - set(cache.missing_shards):
            if self.sizes[number]:
                cache.open_shard(number)
        images = 0
        while missing := cache.missing_shards:
            self._report(missing)
            before = images
            for number in missing:
                name = shard_name(number)
                # Another process may hold it, or have made it since the folder was listed.
                with suppress(Timeout), FileLock(cache.folder / LOCKS / f"{name}.lock", timeout=0):
                    if not (cache.folder / name).exists():
                        self._encode_shard(number)
                        images += self.sizes[number]
            if images == before:
                others = f"waiting for {len(missing)} shards that other processes encode"
                self._report(missing, note=others)
                time.sleep(_POLL_SECONDS)
        self._report(())
        return images

    def _encode_shard(self, number: int) -> None:
        cache = self.cache
        path = cache.folder / shard_name(number)
        # What a holder that was killed had begun to write; the lock says that nobody still does.
        remove_leftovers(cache.folder, path.stem)
        missing = cache.missing_shards
        self._report(missing)
        images = [cache.manifest.images[row] for row in cache.sharding.rows[number]]
        shape = cache.space.moments_shape(cache.resolution)
        moments = torch.empty((len(images), 2, *shape), dtype=STORAGE[cache.description.dtype])
        batch_size = self.spec.batch_size
        pixels = _ahead(self.pool, self._read, images, batch_size + self.spec.loaders)
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            batch = torch.from_numpy(np.stack([next(pixels) for _ in part]))
            # (B, H, W, 3) -> (B, 3, H, W)
            batch = batch.permute(0, 3, 1, 2).contiguous()
            stop = start + len(part)
            moments[start:stop, 0] = self._moments(batch, part, moments.dtype)
            moments[start:stop, 1] = self._moments(batch.flip(-1), part, moments.dtype)
            self._report(missing, encoded=stop)
        write_shard(path, cache.shard_facts(number), moments)

    def _read(self, image: ManifestImage) -> NDArray[np.uint8]:
        return read_checked_image(self.source, self.cache.manifest, image, self.cache.resolution)

    def _moments(self, batch: Tensor, images: list[ManifestImage], dtype: torch.dtype) -> Tensor:
        """(B, C', h, w) in the type of the cache, of (B, 3, H, W)."""
        size = self.spec.batch_size
        filled = torch.cat([batch, batch[-1:].expand(size - len(batch), -1, -1, -1)])
        try:
            moments = self.autoencoder.encode(filled)[: len(batch)].cpu()
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise UserError(
                f"the memory does not hold a batch of {size} images of "
                f"{self.cache.resolution} pixels a side: encode with a smaller --batch-size"
            ) from error
        stored = moments.to(dtype)
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
        self.on_progress(Progress("encode", done, total, note))


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
