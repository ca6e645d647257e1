from __future__ import annotations

import io
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.config.sections import DataConfig
from harness.data.datasets import data_content, load_data_set
from harness.data.datasets.cifar10 import ENVIRONMENT, FOLDER, read_batches
from models.errors import UserError

Build = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)


def config(path: Path | None, **changes: object) -> DataConfig:
    values = {
        "name": "cifar10",
        "path": None if path is None else str(path),
        "resolution": 32,
        "held_out": 10,
        "horizontal_flip": True,
        "workers": 0,
    }
    return DataConfig.model_validate({**values, **changes})


def test_torchvisions_folder_is_split_without_losing_an_image(cifar_folder: Build) -> None:
    root = cifar_folder(images=20)
    whole = read_batches(root / FOLDER)
    data = load_data_set(config(root))
    assert data.train.shape == (3, 32, 32)
    assert len(data.held_out.labels) == 10
    images = torch.cat([data.train.images, data.held_out.images])
    assert sorted(image.numpy().tobytes() for image in images) == sorted(
        image.numpy().tobytes() for image in whole.images
    )


def test_the_folder_of_batches_itself_may_be_named(cifar_folder: Build) -> None:
    root = cifar_folder()
    inner = load_data_set(config(root / FOLDER))
    assert inner.train.fingerprint() == load_data_set(config(root)).train.fingerprint()


def test_class_folders_and_their_zip_give_the_same_data(class_folders: Build) -> None:
    folder = class_folders(images=3)
    archive = Path(shutil.make_archive(str(folder), "zip", folder))
    by_folder, by_zip = load_data_set(config(folder)), load_data_set(config(archive))
    assert by_folder.train.fingerprint() == by_zip.train.fingerprint()
    assert by_folder.held_out.fingerprint() == by_zip.held_out.fingerprint()
    assert torch.bincount(by_folder.held_out.labels).tolist() == [1] * 10


def test_class_folders_number_the_classes_as_the_original_files_do(
    class_folders: Build, cifar_folder: Build
) -> None:
    names = load_data_set(config(class_folders())).train.class_names
    assert names == load_data_set(config(cifar_folder())).train.class_names


def test_the_environment_names_the_images_where_the_configuration_does_not(
    class_folders: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = class_folders()
    monkeypatch.setenv(ENVIRONMENT, str(folder))
    assert (
        load_data_set(config(None)).train.fingerprint()
        == load_data_set(config(folder)).train.fingerprint()
    )


@pytest.mark.parametrize("ask", [data_content, load_data_set])
@pytest.mark.parametrize("path", [None, Path("gone"), Path("~/gone")])
def test_missing_images_are_one_line_that_says_how_to_get_them(
    path: Path | None, ask: Callable[[DataConfig], object]
) -> None:
    with pytest.raises(UserError) as caught:
        ask(config(path))
    line = str(caught.value)
    assert "\n" not in line
    assert "CIFAR10('data', download=True)" in line
    assert 'SET="data.path=data"' in line


@pytest.mark.parametrize("ask", [data_content, load_data_set])
def test_images_of_other_classes_are_refused(
    class_folders: Build, ask: Callable[[DataConfig], object]
) -> None:
    with pytest.raises(UserError, match="has the classes cat, dog, but those of CIFAR-10 are"):
        ask(config(class_folders("dog", "cat")))


@pytest.mark.parametrize("there", ["an empty folder", "other files", "a text"])
def test_a_wrong_path_is_refused_by_the_check_already(tmp_path: Path, there: str) -> None:
    path = tmp_path / there
    if there == "a text":
        path.write_text("no archive")
    else:
        path.mkdir()
    if there == "other files":
        (path / "passwd").touch()
    with pytest.raises(UserError, match=re.escape(str(path))):
        data_content(config(path))


@pytest.mark.parametrize("ask", [data_content, load_data_set])
def test_holding_out_all_images_is_refused_by_the_check_already(
    class_folders: Build, ask: Callable[[DataConfig], object]
) -> None:
    with pytest.raises(UserError, match="data.held_out is 20, but there are only 20 images"):
        ask(config(class_folders(), held_out=20))


def test_damaged_original_files_are_refused_by_the_check_already(cifar_folder: Build) -> None:
    root = cifar_folder()
    (root / FOLDER / "data_batch_3").write_bytes(b"")
    with pytest.raises(UserError, match="data_batch_3 is not CIFAR-10's original"):
        data_content(config(root))
    (root / FOLDER / "data_batch_3").unlink()
    with pytest.raises(UserError, match="lacks data_batch_3"):
        data_content(config(root))


def test_the_content_is_that_of_the_images_alone(class_folders: Build, tmp_path: Path) -> None:
    folder = class_folders()
    before = data_content(config(folder))
    (folder / ".DS_Store").touch()
    (folder / ".ipynb_checkpoints").mkdir()
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in folder.iterdir():
        (linked / path.name).symlink_to(path)
    assert data_content(config(folder)) == data_content(config(linked)) == before
    image = folder / "cat" / "0000.png"
    image.write_bytes(image.read_bytes() + b"0")
    assert data_content(config(folder)) == data_content(config(linked)) != before


@pytest.mark.parametrize("ask", [data_content, load_data_set])
def test_another_resolution_is_refused_with_the_right_one(
    class_folders: Build, ask: Callable[[DataConfig], object]
) -> None:
    with pytest.raises(UserError, match="set data.resolution=32"):
        ask(config(class_folders(), resolution=64))


def test_the_check_reads_no_image(class_folders: Build) -> None:
    folder = class_folders()
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    data_content(config(folder))
    with pytest.raises(UserError, match="20 of 20 images cannot be used"):
        load_data_set(config(folder))


def test_a_zip_of_the_real_images_is_read_as_pillow_reads_them(shared_data: Path) -> None:
    archive = shared_data / "cifar10-test.zip"
    data = load_data_set(config(archive, held_out=1000))
    assert torch.bincount(data.held_out.labels).tolist() == [100] * 10
    assert torch.bincount(data.train.labels).tolist() == [900] * 10
    with zipfile.ZipFile(archive) as files:
        names = sorted(name for name in files.namelist() if name.endswith(".jpg"))
        expected = {
            np.asarray(Image.open(io.BytesIO(files.read(name))).convert("RGB"))
            .transpose(2, 0, 1)
            .tobytes()
            for name in names[::500]
        }
    assert len(expected) == 20
    images = torch.cat([data.train.images, data.held_out.images])
    assert expected <= {image.numpy().tobytes() for image in images}
