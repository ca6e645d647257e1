from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.data.sources import open_source
from harness.data.sources.parquet import RowGroups
from models.errors import UserError

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """`table([b"1", b"2"], [0, 1])`: a file with these images and labels."""

    def build(
        images: list[bytes | None],
        labels: list[int | None],
        *,
        kind: pa.DataType = STRUCT,
        label: pa.DataType | None = None,
        names: Any = None,
        name: str = "x.parquet",
        group: int = 2,
        columns: tuple[str, str] = ("image", "label"),
    ) -> Path:
        is_struct = pa.types.is_struct(kind)
        values = [{"bytes": each, "path": "a.png"} for each in images] if is_struct else images
        content = pa.table(
            {
                "id": pa.array(range(len(images)), pa.int32()),
                columns[0]: pa.array(values, kind),
                columns[1]: pa.array(labels, label or pa.int64()),
            }
        )
        if names is not None:
            features = {"label": {"names": names, "_type": "ClassLabel"}}
            info = json.dumps({"info": {"features": features}})
            content = content.replace_schema_metadata({"huggingface": info})
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(content, path, row_group_size=group)
        return path

    return build


def contents(path: Path) -> dict[str, tuple[str, bytes]]:
    """Class and bytes by id."""
    source = open_source(path)
    return {e.id: (source.class_ids[e.label], source.read(e.id)) for e in source.entries()}


@pytest.mark.parametrize("kind", [STRUCT, pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("label", [pa.int64(), pa.int32(), pa.uint8()])
def test_images_are_bytes_alone_or_in_a_struct(
    table: Callable[..., Path], kind: pa.DataType, label: pa.DataType
) -> None:
    path = table([b"zero", b"one", b"two"], [1, 0, 1], kind=kind, label=label, names=["a", "b"])
    assert contents(path) == {
        "x.parquet#0": ("b", b"zero"),
        "x.parquet#1": ("a", b"one"),
        "x.parquet#2": ("b", b"two"),
    }


def test_rows_are_numbered_through_all_groups(table: Callable[..., Path]) -> None:
    images = [str(number).encode() for number in range(11)]
    found = contents(table(images, [0] * 11, group=3))
    assert found == {f"x.parquet#{number}": ("0", images[number]) for number in range(11)}


@pytest.mark.parametrize("names", [None, "cat", [1, 2]])
def test_without_names_of_classes_numbers_are_names(table: Callable[..., Path], names: Any) -> None:
    assert open_source(table([b"0", b"1"], [1, 0], names=names)).class_ids == ("0", "1")


def test_metadata_that_are_no_json_are_passed_over(tmp_path: Path) -> None:
    content = pa.table({"image": pa.array([b"0"], pa.binary()), "label": [0]})
    path = tmp_path / "x.parquet"
    pq.write_table(content.replace_schema_metadata({"huggingface": "{"}), path)
    assert open_source(path).class_ids == ("0",)


def test_metadata_nested_deep_are_passed_over(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([b"x"]), "label": pa.array([0])})
    path = tmp_path / "x.parquet"
    pq.write_table(table.replace_schema_metadata({"huggingface": "[" * 100_000}), path)
    assert open_source(path).class_ids == ("0",)


@pytest.mark.parametrize("twice", ["image", "label"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, twice: str) -> None:
    columns = {"image": pa.array([b"x"]), "label": pa.array([0])}
    names = ["image", "label", twice]
    table = pa.Table.from_arrays([columns[name] for name in names], names=names)
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(UserError, match=f"several columns {twice}, but expected one"):
        open_source(tmp_path / "x.parquet").entries()


def test_a_row_costs_its_group_alone(
    table: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(table([b"%d" % number for number in range(6)], [0] * 6, group=2))
    source.entries()
    read: list[int] = []
    original = pq.ParquetFile.read_row_group

    def spy(self: pq.ParquetFile, i: int, **options: Any) -> pa.Table:
        read.append(i)
        return original(self, i, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    assert [source.read(f"x.parquet#{row}") for row in (3, 2, 5, 3)] == [b"3", b"2", b"5", b"3"]
    assert read == [1, 2]


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_beyond_the_names_is_told_with_file_and_row(
    table: Callable[..., Path], label: int
) -> None:
    path = table([b"0", b"1", b"2"], [0, 1, label], names=["a", "b"])
    with pytest.raises(UserError, match=rf"x.parquet#2 has the label {label}, .* 0 to 1"):
        open_source(path).entries()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([b"0", None], [0, 0], r"x.parquet#1 has no encoded image"),
        ([b"0", b"1", b"2"], [0, 0, None], r"x.parquet#2 has no label"),
    ],
)
def test_a_missing_value_is_told_with_file_and_row(
    table: Callable[..., Path], images: list[bytes | None], labels: list[int | None], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        open_source(table(images, labels)).entries()


@pytest.mark.parametrize(
    "options",
    [
        {"columns": ("img", "label")},
        {"columns": ("image", "fine_label")},
        {"label": pa.float64()},
        {"kind": pa.struct([("path", pa.string())])},
    ],
)
def test_other_columns_are_told(table: Callable[..., Path], options: dict[str, Any]) -> None:
    path = table([b"0"], [0], **options)
    with pytest.raises(UserError, match=r"has the columns id \(int32\), .* but expected image"):
        open_source(path).entries()


def test_files_of_two_data_sets_are_refused(table: Callable[..., Path], tmp_path: Path) -> None:
    table([b"0"], [0], names=["cat"], name="set/a.parquet")
    table([b"0"], [0], names=["dog"], name="set/b.parquet")
    with pytest.raises(UserError, match=r"b.parquet names other classes than .*a.parquet"):
        open_source(tmp_path / "set").entries()


def test_a_file_without_rows_is_refused(table: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="holds no image"):
        open_source(table([], [])).entries()


def test_damage_within_a_file_is_told(table: Callable[..., Path]) -> None:
    images = [bytes([number]) * 5000 for number in range(4)]
    path = table(images, [0] * 4)
    content = bytearray(path.read_bytes())
    content[: len(content) // 4] = b"\xff" * (len(content) // 4)
    content[:4] = b"PAR1"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x.parquet is damaged or cut off"):
        open_source(path).entries()


def test_the_groups_used_last_are_kept_up_to_the_limit() -> None:
    group = pa.chunked_array([pa.array([b"x" * 100])])
    groups = RowGroups(most=2 * group.nbytes)
    read: list[int] = []

    def get(number: int) -> None:
        def reading() -> pa.ChunkedArray:
            read.append(number)
            return group

        assert groups.get((0, number), reading) is group

    for number in (1, 2, 1, 3, 1, 2):
        get(number)
    assert read == [1, 2, 3, 2]


def test_a_group_above_the_limit_is_kept_alone() -> None:
    group = pa.chunked_array([pa.array([b"x" * 100])])
    groups = RowGroups(most=1)
    groups.get((0, 0), lambda: group)
    assert groups.get((0, 0), lambda: pytest.fail("read again")) is group


def test_a_process_forked_while_a_thread_holds_the_lock_does_not_wait_for_it(
    run_forked: Callable[[Callable[[], object]], object],
) -> None:
    groups = RowGroups()
    group = pa.chunked_array([pa.array([b"x"])])
    with groups._lock:
        found = run_forked(lambda: groups.get((0, 0), lambda: group).to_pylist())
    assert found == [b"x"]
