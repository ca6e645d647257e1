from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.evaluation.features import Extraction
from harness.evaluation.reference import RealImages, Reference, drawn_without_order, load_reference
from harness.processes.progress import Progress
from harness.processes.signals import StopRequest
from models.errors import Preempted
from tests.support.processes.lock_holder import flocked

ROOT = Path(__file__).parents[3]


@pytest.fixture
def real(digits: np.ndarray) -> RealImages:
    return RealImages(digits[:20], "0123456789abcdef")


def load(real: RealImages, extractor, folder: Path, seen: list[Progress] | None = None):
    listener = (lambda _: None) if seen is None else seen.append
    return load_reference(real, Extraction(extractor, 8, "cpu", on_progress=listener), folder)


def equal(a: Reference, b: Reference) -> bool:
    return np.array_equal(a.features.features, b.features.features) and np.array_equal(
        a.features.logits, b.features.logits
    )


def test_the_second_time_nothing_is_extracted(real, projection, tmp_path: Path) -> None:
    first = load(real, projection, tmp_path / "cache")
    assert projection.seen == 20
    second = load(real, projection, tmp_path / "cache")
    assert projection.seen == 20
    assert equal(first, second)
    assert second.fingerprint == "0123456789abcdef"
    assert (second.extractor, second.weights_sha256) == ("random_projection", "ab" * 32)


def test_the_file_is_named_after_extractor_weights_and_images(
    real, projection, tmp_path: Path
) -> None:
    load(real, projection, tmp_path)
    files = {path.name for path in tmp_path.iterdir() if path.suffix != ".lock"}
    assert files == {"random_projection-abababababab-0123456789ab.npz"}


def test_other_images_or_weights_are_extracted_anew(real, projection, tmp_path: Path) -> None:
    load(real, projection, tmp_path)
    load(replace(real, fingerprint="f" * 64), projection, tmp_path)
    assert projection.seen == 40
    projection.weights_sha256 = "cd" * 32
    load(real, projection, tmp_path)
    assert projection.seen == 60
    assert len(list(tmp_path.glob("*.npz"))) == 3


def flip_a_byte(path: Path, real: RealImages) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def cut_short(path: Path, real: RealImages) -> None:
    path.write_bytes(path.read_bytes()[:300])


def empty(path: Path, real: RealImages) -> None:
    path.write_bytes(b"")


def be_of_other_images(path: Path, real: RealImages) -> None:
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["identity"] = np.array(str(arrays["identity"]).replace("0123456789abcdef", "0" * 16))
    np.savez(path, **arrays)


def lose_a_row(path: Path, real: RealImages) -> None:
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **{**arrays, "features": arrays["features"][1:]})


@pytest.mark.parametrize("damage", [flip_a_byte, cut_short, empty, be_of_other_images, lose_a_row])
def test_a_damaged_file_is_noticed_and_made_again(damage, real, projection, tmp_path: Path) -> None:
    good = load(real, projection, tmp_path)
    (path,) = tmp_path.glob("*.npz")
    damage(path, real)
    seen: list[Progress] = []
    assert equal(load(real, projection, tmp_path, seen), good)
    assert projection.seen == 40
    assert "made again" in seen[0].note
    load(real, projection, tmp_path)
    assert projection.seen == 40


TWO_AT_ONCE = """
import sys, time
from pathlib import Path
sys.path[:0] = {paths!r}
from tests.support.stand_ins.random_projection import RandomProjection
from harness.evaluation.features import Extraction
from harness.evaluation.reference import RealImages, load_reference
import numpy as np

folder = Path({folder!r})
(folder / f"ready-{{sys.argv[1]}}").touch()
while len(list(folder.glob("ready-*"))) < 2:
    time.sleep(0.01)
extractor = RandomProjection()
real = RealImages(np.zeros((4, 8, 8, 1), dtype=np.uint8), "f" * 64)
slow = Extraction(extractor, 1, "cpu", on_progress=lambda _: time.sleep(0.2))
load_reference(real, slow, folder)
print(extractor.seen)
"""


def test_of_two_processes_one_extracts_and_the_other_waits(tmp_path: Path) -> None:
    program = TWO_AT_ONCE.format(paths=[str(ROOT)], folder=str(tmp_path))
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(k)], stdout=subprocess.PIPE, text=True)
        for k in range(2)
    ]
    seen = sorted(int(process.communicate(timeout=120)[0]) for process in processes)
    assert seen == [0, 4]


def test_a_wait_for_another_process_ends_when_a_stop_is_requested(
    real, projection, tmp_path: Path
) -> None:
    load(real, projection, tmp_path)
    (lock,) = tmp_path.glob("*.lock")
    stop, seen = StopRequest(), []
    listener = stop.between_batches(seen.append)
    extraction = Extraction(projection, 8, "cpu", on_progress=listener)
    threading.Timer(0.2, stop.request, ["SIGTERM"]).start()
    with flocked(lock), pytest.raises(Preempted, match="stopped by SIGTERM"):
        load_reference(real, extraction, tmp_path)
    assert "another process" in seen[0].note
    load(real, projection, tmp_path)
    assert projection.seen == 20


def test_a_draw_is_fixed_without_repeats_and_not_in_order(real, projection, tmp_path: Path) -> None:
    reference = load(real, projection, tmp_path)
    seven = drawn_without_order(reference, 7)
    assert len(seven) == 7
    rows = [
        int((reference.features.features == row).all(axis=1).nonzero()[0][0])
        for row in seven.features
    ]
    assert len(set(rows)) == 7
    assert rows != sorted(rows)
    assert np.array_equal(drawn_without_order(reference, 7).features, seven.features)
    assert len(drawn_without_order(reference, 99)) == 20
