"""CIFAR-10's original files; small ones take their place, with their checksums."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from harness.data.datasets.cifar10 import BATCHES, FOLDER, read_batches
from models.errors import UserError

Build = Callable[..., Path]


def test_the_names_are_those_that_torchvision_checks() -> None:
    assert [name for name, _ in CIFAR10.train_list] == list(BATCHES)
    assert CIFAR10.base_folder == FOLDER


def test_images_and_labels_are_those_of_the_files_in_their_order(cifar_folder: Build) -> None:
    folder = cifar_folder() / FOLDER
    stored = [pickle.loads((folder / name).read_bytes()) for name in BATCHES]
    found = read_batches(folder)
    rows = np.concatenate([batch["data"] for batch in stored])
    assert np.array_equal(found.images.numpy(), rows.reshape(-1, 3, 32, 32))
    assert found.labels.tolist() == [label for batch in stored for label in batch["labels"]]
    assert found.class_names[:2] == ("airplane", "automobile")
    assert found.images.is_contiguous()


def test_the_test_images_are_not_needed(cifar_folder: Build) -> None:
    folder = cifar_folder() / FOLDER
    assert not (folder / "test_batch").exists()
    assert len(read_batches(folder).labels) == 20


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["PICKLE_PROBE"],)


def test_a_pickle_that_would_run_code_is_refused_unopened(
    cifar_folder: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made by the pickle"
    monkeypatch.setenv("PICKLE_PROBE", str(made))
    root = cifar_folder()
    for name in (BATCHES[2], "batches.meta"):
        bad = root / FOLDER / name
        whole = bad.read_bytes()
        bad.write_bytes(pickle.dumps({"data": RunsCode(), "labels": []}))
        with pytest.raises(UserError, match=f"{name} is not CIFAR-10's original"):
            read_batches(root / FOLDER)
        assert not made.exists()
        pickle.loads(bad.read_bytes())
        assert made.exists()
        made.rmdir()
        bad.write_bytes(whole)


def test_a_changed_or_cut_file_is_refused_by_its_name(cifar_folder: Build) -> None:
    root = cifar_folder(images=1)
    path = root / FOLDER / "data_batch_5"
    whole = path.read_bytes()
    for content in (b"", whole[:40], whole[:-1], whole + b"0", b"x" + whole[1:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="data_batch_5 is not CIFAR-10's original"):
            read_batches(root / FOLDER)


def test_missing_files_are_all_named(cifar_folder: Build) -> None:
    root = cifar_folder()
    (root / FOLDER / "data_batch_2").unlink()
    (root / FOLDER / "batches.meta").unlink()
    with pytest.raises(UserError, match=r"lacks data_batch_2, batches\.meta; get it with"):
        read_batches(root / FOLDER)
