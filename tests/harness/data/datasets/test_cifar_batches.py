"""Torchvision's reader is the reference; the files are small ones in its layout."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from harness.data.datasets.cifar10 import BATCHES, FOLDER, read_batches
from models.errors import UserError

Build = Callable[..., Path]


def read_by_torchvision(root: Path) -> CIFAR10:
    """Torchvision knows the checksums of the full files; here they are those of the small ones."""

    def with_checksum(name: str) -> list[str]:
        content = (root / FOLDER / name).read_bytes()
        return [name, hashlib.md5(content, usedforsecurity=False).hexdigest()]

    checksums = {
        "train_list": [with_checksum(name) for name in BATCHES],
        "test_list": [with_checksum("test_batch")],
        "meta": {**CIFAR10.meta, "md5": with_checksum("batches.meta")[1]},
    }
    small: type[CIFAR10] = type("Small", (CIFAR10,), checksums)
    return small(str(root))


def as_protocol(protocol: int) -> Callable[[Any], bytes]:
    return lambda content: pickle.dumps(content, protocol=protocol)


@pytest.mark.parametrize("protocol", ["python 2", 0, 1, 2, 3, 4])
def test_images_and_labels_are_those_that_torchvision_reads(
    cifar_folder: Build, protocol: str | int
) -> None:
    root = (
        cifar_folder() if isinstance(protocol, str) else cifar_folder(write=as_protocol(protocol))
    )
    theirs, ours = read_by_torchvision(root), read_batches(root / FOLDER)
    assert torch.equal(ours.images, torch.from_numpy(theirs.data.transpose(0, 3, 1, 2)))
    assert ours.labels.tolist() == theirs.targets
    assert list(ours.class_names) == theirs.classes


def test_a_table_written_column_by_column_is_read_right(cifar_folder: Build) -> None:
    def write(content: dict[str, Any]) -> bytes:
        columns = {"data": np.asfortranarray(content["data"])} if "data" in content else {}
        return pickle.dumps({**content, **columns}, protocol=2)

    root = cifar_folder(write=write)
    expected = read_by_torchvision(root).data.transpose(0, 3, 1, 2)
    assert torch.equal(read_batches(root / FOLDER).images, torch.from_numpy(expected))


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["PICKLE_PROBE"],)


def test_a_pickle_that_would_run_code_is_refused(
    cifar_folder: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made by the pickle"
    monkeypatch.setenv("PICKLE_PROBE", str(made))
    root = cifar_folder()
    bad = root / FOLDER / BATCHES[2]
    bad.write_bytes(pickle.dumps({"data": RunsCode(), "labels": []}))
    with pytest.raises(UserError, match=r"data_batch_3 .* asks for (posix|nt)\.mkdir"):
        read_batches(root / FOLDER)
    assert not made.exists()
    pickle.loads(bad.read_bytes())
    assert made.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": np.zeros((2, 3072), dtype=np.float32), "labels": [0, 1]}, "instead of bytes"),
        ({"data": np.zeros((2, 3072), dtype=object), "labels": [0, 1]}, "instead of bytes"),
        (
            {"data": np.zeros((2, 3072, 1), dtype=np.uint8), "labels": [0, 1]},
            "not a table of bytes",
        ),
        ({"data": np.zeros((2, 3072), dtype=np.uint8), "labels": [0]}, "one row of 3072 bytes"),
        ({"data": np.zeros((2, 3072), dtype=np.uint8), "labels": [0, 10]}, "one row of 3072 bytes"),
        ({"data": np.zeros((2, 300), dtype=np.uint8), "labels": [0, 1]}, "one row of 3072 bytes"),
        ({"data": [1, 2], "labels": [0, 1]}, "one row of 3072 bytes"),
        ({"data": np.zeros((2, 3072), dtype=np.uint8)}, "lacks labels"),
        ([1], "lacks data"),
    ],
    ids=str,
)
def test_other_content_is_refused_by_the_files_name(
    cifar_folder: Build, content: Any, message: str
) -> None:
    root = cifar_folder()
    (root / FOLDER / "data_batch_4").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UserError, match=f"data_batch_4.*{message}"):
        read_batches(root / FOLDER)


def test_a_file_cut_short_is_refused_wherever_it_ends(cifar_folder: Build) -> None:
    root = cifar_folder(images=1)
    path = root / FOLDER / "data_batch_5"
    whole = path.read_bytes()
    for length in (0, 1, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(
            UserError, match="data_batch_5 is not a file of CIFAR-10, or is damaged"
        ):
            read_batches(root / FOLDER)


def test_missing_files_are_all_named(cifar_folder: Build) -> None:
    root = cifar_folder()
    (root / FOLDER / "data_batch_2").unlink()
    (root / FOLDER / "batches.meta").unlink()
    with pytest.raises(UserError, match=r"lacks data_batch_2, batches\.meta"):
        read_batches(root / FOLDER)
