from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from harness.machine.npz import (
    StreamedArray,
    array_shape,
    load_arrays,
    map_member,
    map_npy,
    open_npz_array,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 7, 5, 3)).astype(np.uint8)


def test_a_stored_array_is_mapped(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", other=np.arange(3), arr_0=IMAGES)
    found = open_npz_array(tmp_path / "a.npz", "arr_0")
    assert isinstance(found, np.memmap)
    assert np.array_equal(found, IMAGES)


def test_columns_first_are_mapped_too(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", arr_0=np.asfortranarray(IMAGES))
    assert np.array_equal(map_member(tmp_path / "a.npz", "arr_0.npy"), IMAGES)


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_a_compressed_array_is_streamed_in_any_order_of_slices(
    dtype: type[np.generic], tmp_path: Path
) -> None:
    expected = IMAGES.astype(dtype)
    np.savez_compressed(tmp_path / "a.npz", arr_0=expected)
    found = open_npz_array(tmp_path / "a.npz", "arr_0")
    assert isinstance(found, StreamedArray)
    assert (len(found), found.shape, found.dtype) == (50, IMAGES.shape, np.dtype(dtype))
    for rows in (slice(0, 8), slice(8, 20), slice(40, 50), slice(3, 5), slice(48, 60), slice(9, 9)):
        assert np.array_equal(found[rows], expected[rows])


def test_compressed_columns_first_are_read_as_a_whole(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", arr_0=np.asfortranarray(IMAGES))
    assert np.array_equal(open_npz_array(tmp_path / "a.npz", "arr_0"), IMAGES)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_shape_is_read_from_the_header_alone(save, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, arr_0=IMAGES)
    content = bytearray(path.read_bytes())
    # The array's own bytes are spoilt, its header is not.
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    assert array_shape(path, "arr_0") == IMAGES.shape


def test_arrays_of_python_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", arr_0=np.array([{}, {}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        open_npz_array(tmp_path / "a.npz", "arr_0")


def test_an_array_that_is_not_there_raises_key_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", other=np.arange(3))
    with pytest.raises(KeyError):
        open_npz_array(tmp_path / "a.npz", "arr_0")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_is_noticed(save, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, arr_0=IMAGES)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises((zipfile.BadZipFile, zlib.error)):
        open_npz_array(path, "arr_0")[0:50]


def _npy(shape: str, descr: str = "|u1", data: bytes = b"\0" * 64) -> bytes:
    """A `.npy` with a header of our own."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


CLAIMS = pytest.mark.parametrize(
    "shape",
    [
        "()",
        "(-1, 8, 8, 3)",
        "(10, -64)",
        "(1000000000, 1000000000, 1000000000, 3)",
        f"({2**63}, 2, 2, 3)",
        "(2, 1000000000, 1000000000, 3)",
        "(65,)",
        "(63,)",
        "('a',)",
        "(1.5,)",
    ],
)


@CLAIMS
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_header_that_claims_another_size_is_refused(
    shape: str, compression: int, tmp_path: Path
) -> None:
    path = tmp_path / "claims.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("arr_0.npy", _npy(shape))
    for read in (
        lambda: open_npz_array(path, "arr_0"),
        lambda: load_arrays(path),
        lambda: array_shape(path, "arr_0"),
    ):
        with pytest.raises((ValueError, zlib.error)):
            read()


@CLAIMS
def test_a_npy_that_claims_another_size_is_refused(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "claims.npy"
    path.write_bytes(_npy(shape))
    with pytest.raises(ValueError, match=r".+"):
        map_npy(path)


def test_an_archive_that_claims_to_unpack_to_more_than_zip_can_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "claims.npz"
    size = 10**12
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", _npy(f"({size},)"))
        archive.filelist[0].file_size = size + 128
    with pytest.raises(ValueError, match="says that it unpacks to"):
        open_npz_array(path, "arr_0")
