"""The same images in every kind of source."""

from __future__ import annotations

import io
import json
import multiprocessing
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

Images = dict[str, bytes]


def add_to_tar(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_tar(path: Path, files: Images, *folders: str) -> Path:
    with tarfile.open(path, "w") as archive:
        for name in folders:
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE
            archive.addfile(member)
        for name, content in files.items():
            add_to_tar(archive, name, content)
    return path


def to_folder(root: Path, images: Images) -> Path:
    for name, content in images.items():
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root / "images"


def to_zip(root: Path, images: Images) -> Path:
    path = root / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (name, content) in enumerate(images.items()):
            method = zipfile.ZIP_STORED if number % 2 else zipfile.ZIP_DEFLATED
            archive.writestr(name, content, method)
    return path


def to_tar(root: Path, images: Images) -> Path:
    return write_tar(root / "images.tar", images)


def to_imagenet(root: Path, images: Images) -> Path:
    """A tar a class in one tar, as ImageNet is handed out."""
    inner: dict[str, Images] = {}
    for name, content in images.items():
        class_id, _, base = name.partition("/")
        inner.setdefault(class_id, {})[base] = content
    packed = {}
    for class_id, files in inner.items():
        path = write_tar(root / f"{class_id}.tar", files)
        packed[path.name] = path.read_bytes()
        path.unlink()
    return write_tar(root / "ILSVRC2012_img_train.tar", packed)


def to_webdataset(root: Path, images: Images) -> Path:
    """Two shards; every second label stands in a JSON file."""
    folder = root / "shards"
    folder.mkdir()
    classes = sorted({name.partition("/")[0] for name in images})
    (folder / "classes.txt").write_text("\n".join(classes) + "\n")
    shards: list[Images] = [{}, {}]
    for number, (name, content) in enumerate(images.items()):
        class_id, _, base = name.partition("/")
        label = classes.index(class_id)
        files = shards[number % 2]
        key = f"{number:05d}"
        files[f"{key}.{base.rpartition('.')[2].lower()}"] = content
        if number % 2:
            files[f"{key}.json"] = json.dumps({"label": label, "filename": name}).encode()
        else:
            files[f"{key}.cls"] = str(label).encode()
    for number, files in enumerate(shards):
        write_tar(folder / f"shard-{number:06d}.tar", files)
    return folder


def to_parquet(root: Path, images: Images) -> Path:
    """Two files with groups of two rows, and the metadata of Hugging Face's `datasets`."""
    folder = root / "repository"
    (folder / "data").mkdir(parents=True)
    classes = sorted({name.partition("/")[0] for name in images})
    features = {
        "image": {"_type": "Image"},
        "label": {"names": classes, "_type": "ClassLabel"},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = list(images)
    middle = len(names) // 2
    for number, part in enumerate((names[:middle], names[middle:])):
        table = pa.table(
            {
                "image": pa.array(
                    [{"bytes": images[name], "path": name.rpartition("/")[2]} for name in part],
                    kind,
                ),
                "label": pa.array(
                    [classes.index(name.partition("/")[0]) for name in part], pa.int64()
                ),
            }
        ).replace_schema_metadata(metadata)
        path = folder / "data" / f"train-{number:05d}-of-00002.parquet"
        pq.write_table(table, path, row_group_size=2)
    return folder


PACKERS = {
    "folder": to_folder,
    "zip": to_zip,
    "tar": to_tar,
    "imagenet": to_imagenet,
    "webdataset": to_webdataset,
    "parquet": to_parquet,
}


@pytest.fixture(scope="session")
def images() -> Images:
    """Contents by `CLASS/NAME`, in an order of their own, formats and sizes mixed."""
    stream = np.random.default_rng(0)
    found = {}
    for number in stream.permutation(10).tolist():
        pixels = stream.integers(0, 256, (8 + number, 9, 3), dtype=np.uint8)
        file = io.BytesIO()
        suffix, kind = (("JPEG", "JPEG"), ("png", "PNG"), ("webp", "WEBP"))[number % 3]
        Image.fromarray(pixels).save(file, kind)
        class_id = ("n01440764", "n01443537", "n02102040")[number % 3]
        found[f"{class_id}/{class_id}_{number}.{suffix}"] = file.getvalue()
    return found


@pytest.fixture
def pack(tmp_path: Path) -> Callable[[str, Images], Path]:
    """`pack("zip", images)`: they are then in a source of that kind, which is returned."""

    def build(kind: str, images: Images) -> Path:
        return PACKERS[kind](tmp_path, images)

    return build


@pytest.fixture
def tar(tmp_path: Path) -> Callable[..., Path]:
    """`tar("a.tar", {"name": b"content"}, "folder")`."""

    def build(name: str, files: Images, *folders: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_tar(path, files, *folders)

    return build


@pytest.fixture
def write_twice(tmp_path: Path) -> Callable[..., Path]:
    """`write_twice("zip", ("a/1.png", "a/1.png"))`: an archive that may hold a name twice."""

    def build(kind: str, names: tuple[str, ...]) -> Path:
        path = tmp_path / f"twice.{kind}"
        if kind == "tar":
            with tarfile.open(path, "w") as archive:
                for name in names:
                    add_to_tar(archive, name, b"")
            return path
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Duplicate name")
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), b"")
        return path

    return build


@pytest.fixture
def with_folders(tmp_path: Path) -> Callable[..., Path]:
    """`with_folders("zip", ("a/1.png",), ("b",))`: files, and folders that are really there."""

    def build(kind: str, names: tuple[str, ...], folders: tuple[str, ...]) -> Path:
        images = dict.fromkeys(names, b"content")
        if kind == "tar":
            return write_tar(tmp_path / "images.tar", images, *folders)
        path = PACKERS[kind](tmp_path, images)
        if kind == "folder":
            for name in folders:
                (path / name).mkdir(parents=True, exist_ok=True)
            return path
        with zipfile.ZipFile(path, "a") as archive:
            for name in folders:
                archive.writestr(f"{name}/", b"")
        return path

    return build


@pytest.fixture
def run_forked() -> Callable[[Callable[[], object]], object]:
    """`run_forked(work)`: what it returns in a forked process, which has 10 seconds."""

    def run(work: Callable[[], object]) -> object:
        fork = multiprocessing.get_context("fork")
        mine, theirs = fork.Pipe(duplex=False)
        child = fork.Process(target=lambda: theirs.send(work()))
        child.start()
        try:
            assert mine.poll(10), "the forked process does not answer"
            return mine.recv()
        finally:
            child.kill()
            child.join()

    return run
