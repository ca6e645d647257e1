"""`evaluate build-reference`: the images that the command line names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness.config.load import load_data_config
from harness.data.datasets import load_data_set
from harness.data.images import EncodedImages
from harness.data.manifest import read_manifest
from harness.data.sources import open_source
from harness.evaluation.extractors import load_extractor
from harness.evaluation.features import Extraction
from harness.evaluation.image_inputs import ImageInput, open_images
from harness.evaluation.reference import PictureRows
from harness.evaluation.reference_file import build_reference
from harness.evaluation.standalone.spec import BuildSpec
from harness.machine.files import check_writable
from harness.machine.place import choose_device
from harness.processes.group import ProcessGroup
from harness.processes.progress import ProgressListener
from harness.processes.ranks import check_processes, group_of_environment, run_local_ranks
from harness.processes.signals import StopRequest
from harness.vocabulary.names import short_hash
from models.errors import UserError

_LARGEST = 8192
"""Pixels a side: 0.2 GB an image, far beyond what any extractor looks at."""
_SCALE = "scale:"
_RANK = "harness.evaluation.standalone.reference:build_as_rank"


@dataclass(frozen=True)
class Built:
    """What was built, and what should be said of it."""

    provenance: dict[str, Any]
    notes: tuple[str, ...]


def run_build(spec: BuildSpec, processes: int, on_progress: ProgressListener) -> Built | None:
    """Build with several processes on this machine, or as the process that torchrun started.

    Returns:
        None in a process that another one leads.

    Raises:
        UserError: images are missing or damaged, weights give features that are not finite, the
            arguments do not fit one another, or the file cannot be written.
        RankFailedError: a process crashed or was killed.
    """
    check_processes(processes)
    if processes == 1:
        with group_of_environment() as group:
            return _build(spec, group, on_progress)
    payload = {"spec": TypeAdapter(BuildSpec).dump_python(spec, mode="json")}
    found = run_local_ranks(_RANK, payload, processes, on_progress)
    return TypeAdapter(Built).validate_python(found)


def build_as_rank(payload: Mapping[str, Any], report: ProgressListener, stop: StopRequest) -> Any:
    """What each of several processes does; what was built as JSON takes it."""
    spec = TypeAdapter(BuildSpec).validate_python(payload["spec"])
    with group_of_environment() as group:
        built = _build(spec, group, stop.between_batches(report))
    return TypeAdapter(Built | None).dump_python(built, mode="json")


def _build(spec: BuildSpec, group: ProcessGroup, on_progress: ProgressListener) -> Built | None:
    if group.leads:
        check_writable(spec.out)
    images = _open_source_images(spec)
    extractor = load_extractor(spec.extractor, spec.extractor_weights, spec.extractor_size)
    provenance = build_reference(
        images,
        Extraction(extractor, spec.batch_size, choose_device(spec.device), group, on_progress),
        spec.out,
        layout=spec.layout,
        single_images=spec.single_images,
    )
    return Built(provenance, images.notes) if group.leads else None


def _open_source_images(spec: BuildSpec) -> ImageInput:
    source, resolution = spec.source, spec.resolution
    if (spec.manifest is None) != (resolution is None):
        raise UserError(
            "--manifest and --resolution go together: images of a manifest are cropped and resized "
            "to a square, others are taken as they are"
        )
    if resolution is not None and not 1 <= resolution <= _LARGEST:
        raise UserError(f"--resolution is {resolution}, but must be 1 to {_LARGEST:,} pixels")
    if source.startswith(_SCALE):
        if spec.manifest is not None:
            raise UserError(f"{source} has a manifest of its own: name it as data.manifest=FILE")
        name = source.removeprefix(_SCALE)
        config = load_data_config(name, spec.overrides, spec.experiments_dir)
        pictures = load_data_set(config).train.pictures
        fingerprint = short_hash(pictures.fingerprint())
        text = f"training images of {source} ({config.name}, fingerprint {fingerprint})"
        return ImageInput(PictureRows(pictures), text, (), len(pictures.labels.unique()))
    if spec.overrides:
        raise UserError(f"{spec.overrides[0]} changes the data of a scale, but SOURCE is {source}")
    if spec.manifest is None or resolution is None:
        return open_images(Path(source))
    named = read_manifest(spec.manifest)
    images = EncodedImages(open_source(Path(source)), named, resolution)
    text = f"{named.name} (manifest {short_hash(named.hash)}) at {resolution} pixels, from {source}"
    return ImageInput(PictureRows(images), text, (), len(images.labels.unique()))
