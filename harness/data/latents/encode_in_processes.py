"""`data encode`: one process or several, each on its device, into one folder."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.data.latents.autoencoder import load_autoencoder
from harness.data.latents.cache import StorageType, open_cache
from harness.data.latents.encode import Encoded, encode
from harness.data.manifest import read_manifest
from harness.data.sources import open_source
from harness.machine.environment import usable_cores
from harness.machine.place import choose_device
from harness.processes.jobs import Job, JobEnded, JobEvent, JobProgressed
from harness.processes.pool import run_jobs
from harness.processes.progress import ProgressListener
from harness.processes.signals import StopRequest
from models.errors import UserError

_WORKER = "harness.data.latents.encode_in_processes:encode_part"


@dataclass(frozen=True)
class EncodeSpec:
    """What to encode, as the command line names it."""

    source: str
    out: str
    autoencoder: str
    manifest: str
    resolution: int
    dtype: StorageType
    batch_size: int
    images_per_shard: int
    loaders: int
    device: str
    """auto, cpu or cuda."""


def run_encode(spec: EncodeSpec, processes: int, on_progress: ProgressListener) -> Encoded:
    """Encode until all images are there.

    Args:
        spec: what to encode.
        processes: on this machine, GPUs in turn; 1 works in this one.
        on_progress: told the images that are done.

    Raises:
        UserError: as `encode`; or a process ended and left the cache incomplete.
    """
    if processes < 1:
        raise UserError(f"--processes is {processes}, but must be 1 or more")
    if processes == 1:
        return _encode(spec, on_progress)
    return _encode_in_processes(spec, processes, on_progress)


def encode_part(payload: Mapping[str, Any], report: ProgressListener, stop: StopRequest) -> int:
    """What a process of several does; how many images it encoded."""
    return _encode(EncodeSpec(**payload), stop.between_batches(report)).images


def _encode(spec: EncodeSpec, on_progress: ProgressListener) -> Encoded:
    manifest = read_manifest(Path(spec.manifest))
    source = open_source(Path(spec.source))
    return encode(
        source,
        manifest,
        load_autoencoder(spec.autoencoder, choose_device(spec.device)),
        Path(spec.out),
        resolution=spec.resolution,
        images_per_shard=spec.images_per_shard,
        dtype=spec.dtype,
        batch_size=spec.batch_size,
        loaders=spec.loaders,
        on_progress=on_progress,
    )


def _encode_in_processes(
    spec: EncodeSpec, processes: int, on_progress: ProgressListener
) -> Encoded:
    def listen(event: JobEvent) -> None:
        if isinstance(event, JobProgressed):
            on_progress(event.progress)
        # The others would run into the same mistake; what is raised here stops them.
        if isinstance(event, JobEnded) and event.result.caused_by_user:
            raise UserError(event.result.reason)

    began = time.perf_counter()
    logs = Path(tempfile.mkdtemp(prefix="harness-encode-"))
    jobs = [
        Job(f"process {number}", asdict(spec), logs / f"{number}.log")
        for number in range(processes)
    ]
    try:
        results = run_jobs(
            jobs,
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
    if cache is None or not cache.complete:
        raise UserError(
            f"{len(failed)} of {processes} processes ended, the first: {failed[0].reason} (log: "
            f"{failed[0].log_path}); the same command goes on where they stopped"
        )
    shutil.rmtree(logs)
    return Encoded(
        cache, sum(result.value for result in results if result.ok), time.perf_counter() - began
    )
