from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.evaluation.class_labels import matched_labels
from harness.evaluation.image_inputs import FolderImages
from models.errors import UserError

PIXELS = np.zeros((4, 4, 3), dtype=np.uint8)


def class_folders(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(PIXELS).save(root / name / f"{number}.png")
    return root


def npz(path: Path, labels: object, images: int | None = None) -> Path:
    labels = np.asarray(labels)
    count = len(labels) if images is None else images
    np.savez(path, arr_0=np.zeros((count, 4, 4, 3), dtype=np.uint8), arr_1=labels)
    return path


def test_class_folders_are_matched_by_name_in_the_order_of_the_images(tmp_path: Path) -> None:
    samples = class_folders(tmp_path / "s", cat=2, zebra=1)
    real = class_folders(tmp_path / "r", ant=1, cat=1, zebra=2)
    found = matched_labels(samples, real)
    assert found.names == ("ant", "cat", "zebra")
    assert found.samples.tolist() == [1, 1, 2]
    assert found.reference.tolist() == [0, 1, 2, 2]
    by_file = [file.parent.name for file in FolderImages(samples).files]
    assert [found.names[label] for label in found.samples] == by_file


def test_numbers_stand_for_class_folders_in_alphabetical_order(tmp_path: Path) -> None:
    numbers = npz(tmp_path / "s.npz", [2, 0, 1])
    folders = class_folders(tmp_path / "r", b=1, a=1, c=1)
    found = matched_labels(numbers, folders)
    assert [found.names[label] for label in found.samples] == ["c", "a", "b"]
    turned = matched_labels(folders, numbers)
    assert turned.names == ("a", "b", "c")
    assert turned.reference.tolist() == [2, 0, 1]


def test_numbered_folders_are_matched_by_number(tmp_path: Path) -> None:
    numbers = npz(tmp_path / "s.npz", [2, 10])
    folders = class_folders(tmp_path / "r", **{str(number): 1 for number in range(12)})
    found = matched_labels(numbers, folders)
    assert [found.names[label] for label in found.samples] == ["2", "10"]
    by_file = [file.parent.name for file in FolderImages(folders).files]
    assert [found.names[label] for label in found.reference] == by_file


def test_numbers_with_gaps_or_zeros_in_front_match_by_their_value(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "r", **{"001": 1, "2": 1, "10": 1})
    for samples in (
        npz(tmp_path / "s.npz", [10, 1, 2, 1]),
        class_folders(tmp_path / "s", **{"1": 2, "02": 1, "0010": 1}),
    ):
        found = matched_labels(samples, folders)
        assert found.names == ("001", "2", "10")
        ours = [found.names[label] for label in found.samples]
        assert sorted(ours) == ["001", "001", "10", "2"]
        assert "is 10" in found.mapping
    turned = matched_labels(folders, npz(tmp_path / "s.npz", [10, 1, 2, 1]))
    assert [turned.names[label] for label in turned.reference] == ["10", "001", "2", "001"]


def test_labels_that_are_no_folders_number_count_the_folders(tmp_path: Path) -> None:
    """As in the samples of a trial, whose labels are those of the data set."""
    folders = class_folders(tmp_path / "r", **{str(number): 1 for number in range(1, 12)})
    found = matched_labels(npz(tmp_path / "s.npz", [0, 10]), folders)
    assert [found.names[label] for label in found.samples] == ["1", "11"]
    assert "0 is 1, 10 is 11" in found.mapping


def test_two_folders_of_one_number_are_refused(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "r", **{"1": 1, "01": 1})
    with pytest.raises(UserError, match="the same number"):
        matched_labels(folders, folders)


def test_a_label_that_no_data_set_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a label from 0 to 999,999"):
        matched_labels(npz(tmp_path / "s.npz", [0, 2**60]), npz(tmp_path / "r.npz", [0, 1]))


def test_a_hidden_folder_shifts_no_label(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "r", a=1, b=1, **{".ipynb_checkpoints": 1, "__MACOSX": 1})
    assert matched_labels(npz(tmp_path / "s.npz", [0, 1]), folders).names == ("a", "b")


def test_numbers_on_both_sides_are_themselves(tmp_path: Path) -> None:
    found = matched_labels(npz(tmp_path / "s.npz", [3, 3]), npz(tmp_path / "r.npz", [0, 3, 5]))
    assert found.names == ("0", "1", "2", "3", "4", "5")
    assert found.samples.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: class_folders(root / "s", ant=1, yak=1), "has the class 'yak', which"),
        (lambda root: npz(root / "s.npz", [0, 2]), "has the label 2, but .* the classes 0 to 1"),
        (lambda root: npz(root / "s.npz", [0.5, 1]), "arr_1 is float64"),
        (lambda root: npz(root / "s.npz", [0, -1]), "expected a label from 0"),
        (lambda root: npz(root / "s.npz", [0, 1], images=3), "2 labels arr_1 for 3 images"),
    ],
)
def test_labels_of_other_classes_are_refused(make, message: str, tmp_path: Path) -> None:
    real = class_folders(tmp_path / "r", ant=1, cat=1)
    with pytest.raises(UserError, match=message) as refused:
        matched_labels(make(tmp_path), real)
    assert "\n" not in str(refused.value)


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    labelled = npz(tmp_path / "labelled.npz", [0, 1])
    loose = class_folders(tmp_path / "loose", a=1)
    Image.fromarray(PIXELS).save(loose / "x.png")
    np.save(tmp_path / "x.npy", np.zeros((2, 4, 4, 3), dtype=np.uint8))
    np.savez(tmp_path / "bare.npz", arr_0=np.zeros((2, 4, 4, 3), dtype=np.uint8))
    (tmp_path / "cut.npz").write_bytes(labelled.read_bytes()[:200])
    for path, message in (
        (loose, "x.png lies in no class folder"),
        (tmp_path / "x.npy", "holds no labels"),
        (tmp_path / "bare.npz", "holds no labels arr_1"),
        (tmp_path / "cut.npz", "damaged, truncated"),
    ):
        with pytest.raises(UserError, match=message):
            matched_labels(path, labelled)
