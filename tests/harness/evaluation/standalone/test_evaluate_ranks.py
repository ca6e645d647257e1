"""`evaluate --processes` from the command line: processes as users start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.cli.main import main
from harness.machine.environment import ROOT
from tests.support.stand_ins.digit_images import write_digits
from tests.support.stand_ins.random_weights import smooth_images, write_random_vit

SAMPLES, REAL = 37, 50


@pytest.fixture(scope="module", autouse=True)
def one_thread_each() -> None:
    """Of a convolution, the last bits depend on the number of threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_vit(tmp_path_factory.mktemp("weights") / "vit.pth")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real digits as images: samples and real ones."""
    return write_digits(tmp_path_factory.mktemp("images"), SAMPLES, REAL)


def words(folder: Path, weights: Path, out: Path) -> list[str]:
    return ["evaluate", "--samples", str(folder / "samples"), "--reference", str(folder / "real"),
            "--extractor", "torch:test_vit", "--extractor-weights", str(weights),
            "--batch-size", "8", "--resamples", "3", "--json", str(out)]  # fmt: skip


@pytest.fixture(scope="module")
def alone(folder: Path, weights: Path) -> dict[str, Any]:
    """What one process writes."""
    out = folder / "alone.json"
    assert main(words(folder, weights, out)) == 0
    return json.loads(out.read_text())


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["identity"] == expected["identity"]
    assert found["identity"]["samples"] == SAMPLES
    assert found["figures"].keys() == expected["figures"].keys()
    for name, value in expected["figures"].items():
        assert found["figures"][name] == pytest.approx(value, rel=1e-10), name
    assert found["interval"] == pytest.approx(expected["interval"], rel=1e-10)
    assert found["warnings"] == expected["warnings"]


def test_two_processes_print_and_write_what_one_does(
    folder: Path,
    weights: Path,
    alone: dict[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "two.json"
    assert main([*words(folder, weights, out), "--processes", "2"]) == 0
    assert_same(json.loads(out.read_text()), alone)
    shown = capfd.readouterr()
    assert shown.out.count(f"samples: {SAMPLES} of 8x8") == 1
    assert f"features  {SAMPLES}/{SAMPLES}" in shown.err
    assert "resamples/s" in shown.err


def test_numbers_of_processes_that_make_no_sense_are_refused(
    folder: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = words(folder, weights, tmp_path / "out.json")
    assert main([*command, "--processes", "0"]) == 2
    assert "--processes is 0" in capsys.readouterr().err
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert main([*command, "--processes", "2"]) == 2
    assert "start it with torchrun" in capsys.readouterr().err
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    assert main([*command, "--processes", "2"]) == 2
    assert "leave one of the two out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_reference_built_by_two_processes_is_the_same_file(
    folder: Path, weights: Path, tmp_path: Path
) -> None:
    written = []
    for processes in ("1", "2"):
        out = tmp_path / f"{processes}.npz"
        assert main(["evaluate", "build-reference", str(folder / "real"), str(out),
                     "--extractor", "torch:test_vit", "--extractor-weights", str(weights),
                     "--batch-size", "8", "--single-images", "20",
                     "--processes", processes]) == 0  # fmt: skip
        written.append(out.read_bytes())
    assert written[0] == written[1]


@pytest.mark.slow
def test_torchrun_starts_the_processes_as_well(
    folder: Path, weights: Path, alone: dict[str, Any], tmp_path: Path, subprocess_environment
) -> None:
    out = tmp_path / "torchrun.json"
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "harness", *words(folder, weights, out)],
        cwd=ROOT, env=subprocess_environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert_same(json.loads(out.read_text()), alone)
    assert ended.stdout.count(f"samples: {SAMPLES} of 8x8") == 1


@pytest.mark.slow
def test_a_damaged_image_ends_all_processes_with_one_line(
    folder: Path, weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The header is whole; the process that does not lead finds out."""
    (tmp_path / "samples").mkdir()
    for path in (folder / "samples").iterdir():
        (tmp_path / "samples" / path.name).write_bytes(path.read_bytes())
    damaged = tmp_path / "samples" / "010.png"
    Image.fromarray(smooth_images(1, 8, 0)[0, ..., 0].numpy()).save(damaged)
    damaged.write_bytes(damaged.read_bytes()[:-30])
    command = words(folder, weights, tmp_path / "out.json")
    command[command.index("--samples") + 1] = str(tmp_path / "samples")
    assert main([*command, "--processes", "2"]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert "010.png is damaged" in lines[-1]
    assert not [line for line in lines if "Traceback" in line or "lost touch" in line]
    assert not (tmp_path / "out.json").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the children in /proc")
def test_a_killed_process_ends_all_with_one_line(
    weights: Path, tmp_path: Path, subprocess_environment
) -> None:
    np.savez(tmp_path / "many.npz", arr_0=np.zeros((200_000, 8, 8), dtype=np.uint8))
    with subprocess.Popen(
        [sys.executable, "-m", "harness", "evaluate", "--samples", str(tmp_path / "many.npz"),
         "--reference", str(tmp_path / "many.npz"), "--extractor", "torch:test_vit",
         "--extractor-weights", str(weights), "--processes", "2"],
        cwd=ROOT, env=subprocess_environment, stderr=subprocess.PIPE, text=True,
    ) as command:  # fmt: skip
        assert command.stderr is not None
        assert command.stderr.readline().startswith("features")
        pid = command.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert len(children) == 2
        os.kill(int(children[1]), signal.SIGKILL)
        rest = command.stderr.read().strip().splitlines()
        assert command.wait() == 1
    message = rest[-1]
    assert message.startswith("process 1 of 2 ended: killed by signal 9")
    assert "Traceback" not in "".join(rest)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{children[0]}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{children[0]}").exists()
