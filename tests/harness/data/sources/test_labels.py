from __future__ import annotations

from pathlib import Path

import pytest

from harness.data.sources.labels import training_files
from models.errors import UserError

FOLDER = Path("data")


def chosen(*names: str) -> list[str]:
    return [path.name for path in training_files(FOLDER, [FOLDER / name for name in names])]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b.tar", "a.tar"], ["a.tar", "b.tar"]),
        (["validation-0.tar", "train-0.tar", "test-0.tar"], ["train-0.tar"]),
        (["imagenet1k-train-0001.tar", "imagenet1k-val-01.tar"], ["imagenet1k-train-0001.tar"]),
        (["Training.parquet", "dev.parquet", "more.parquet"], ["Training.parquet", "more.parquet"]),
        (["val_1.tar", "val_0.tar"], ["val_0.tar", "val_1.tar"]),
        (["contest-0.tar", "trainer-1.tar"], ["contest-0.tar", "trainer-1.tar"]),
    ],
)
def test_files_for_validation_are_left_out_beside_those_for_training(
    names: list[str], expected: list[str]
) -> None:
    assert chosen(*names) == expected


def test_several_splits_without_one_for_training_are_refused() -> None:
    with pytest.raises(UserError, match="several splits, test, validation, and none is called"):
        chosen("val-0.tar", "test-0.tar")


@pytest.mark.parametrize(
    "pattern", ["train-{:05d}-of-00003.parquet", "train-{:05d}-of-00003-0a1b2c3d4e.parquet"]
)
def test_a_file_that_is_missing_by_number_is_named(pattern: str) -> None:
    names = [pattern.format(number) for number in range(3)]
    assert chosen(*names) == names
    with pytest.raises(UserError, match=r"data lacks the file train-00001-of-00003\.\.\."):
        chosen(names[0], names[2])


def test_missing_files_of_a_split_that_is_left_out_do_not_matter() -> None:
    names = ["train-00000-of-00001.parquet", "test-00001-of-00002.parquet"]
    assert chosen(*names) == names[:1]
