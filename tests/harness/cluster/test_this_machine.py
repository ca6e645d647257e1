from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.cluster.this_machine import resolve_workers
from harness.config.cluster import LocalCluster
from harness.machine.environment import parse_gpu_list, select_visible, visible_gpus
from models.errors import UserError

TWO_GPUS = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-4404041a-04cf-1ccf-9e70-f139a9b1e23c)
"""


ONE_GPU_IN_TWO_SLICES = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c)
  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
  MIG 3g.20gb     Device  1: (UUID: MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-4404041a-04cf-1ccf-9e70-f139a9b1e23c)
"""


def config(
    workers: int | str = "auto", threads: int | str = "auto", processes: int = 1
) -> LocalCluster:
    return LocalCluster.model_validate(
        {
            "launcher": "local",
            "workers": workers,
            "threads_per_worker": threads,
            "processes_per_trial": processes,
        }
    )


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The smallest of what is found counts, so all three are replaced.
    monkeypatch.setattr("harness.machine.environment._CGROUPS", tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("workers", "threads", "jobs", "gpus", "expected"),
    [
        ("auto", "auto", 20, 0, (8, 1)),
        ("auto", "auto", 3, 0, (3, 2)),
        ("auto", "auto", 1, 0, (1, 8)),
        ("auto", "auto", 0, 0, (1, 8)),
        (2, "auto", 20, 0, (2, 4)),
        (4, "auto", 2, 0, (2, 4)),
        ("auto", 4, 20, 0, (2, 4)),
        ("auto", "auto", 20, 2, (2, 4)),
        ("auto", "auto", 1, 2, (1, 8)),
        (1, 3, 20, 2, (1, 3)),
    ],
)
def test_workers_and_threads_share_the_machine(
    workers: int | str, threads: int | str, jobs: int, gpus: int, expected: tuple[int, int]
) -> None:
    warnings: list[str] = []
    devices = [str(i) for i in range(gpus)]
    resolved = resolve_workers(config(workers, threads), jobs, devices, warnings.append)
    assert resolved == expected
    assert warnings == []


@pytest.mark.usefixtures("eight_cores")
def test_more_threads_than_cores_is_a_warning_with_both_numbers() -> None:
    warnings: list[str] = []
    resolved = resolve_workers(config(4, 3), 20, (), warnings.append)
    assert resolved == (4, 3)
    assert len(warnings) == 1
    assert "4 worker(s) with 3 thread(s)" in warnings[0]
    assert "8 core(s)" in warnings[0]


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("processes", "gpus", "expected"),
    [(2, 0, (4, 2)), (3, 0, (2, 4)), (2, 4, (2, 4)), (4, 4, (1, 8)), (2, 5, (2, 4))],
)
def test_a_worker_has_threads_and_gpus_for_all_processes_of_its_trial(
    processes: int, gpus: int, expected: tuple[int, int]
) -> None:
    warnings: list[str] = []
    devices = [str(i) for i in range(gpus)]
    resolved = resolve_workers(config(processes=processes), 20, devices, warnings.append)
    assert resolved == expected
    assert warnings == []


def test_more_processes_than_gpus_are_refused_with_both_numbers() -> None:
    with pytest.raises(UserError, match=r"processes_per_trial is 3, but 2 GPU\(s\)"):
        resolve_workers(config(processes=3), 10, ("0", "1"), print)
    with pytest.raises(UserError, match=r"workers is 2, but 3 GPU\(s\) .* needs 2"):
        resolve_workers(config(2, processes=2), 10, ("0", "1", "2"), print)


def test_more_workers_than_gpus_is_refused_with_both_numbers() -> None:
    with pytest.raises(UserError, match=r"cluster.workers is 3, but 2 GPU\(s\)"):
        resolve_workers(config(3), 10, ("0", "1"), print)


def test_gpus_and_their_slices_are_read_from_the_listing() -> None:
    assert parse_gpu_list(TWO_GPUS) == (
        "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c",
        "GPU-4404041a-04cf-1ccf-9e70-f139a9b1e23c",
    )
    assert parse_gpu_list(ONE_GPU_IN_TWO_SLICES) == (
        "MIG-c7384736-a75d-5afc-978f-d2f1294409fd",
        "MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d",
        "GPU-4404041a-04cf-1ccf-9e70-f139a9b1e23c",
    )
    assert parse_gpu_list("No devices found.\n") == ()


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ("GPU-aa", "GPU-bb")),
        ("", ()),
        ("-1", ()),
        ("1", ("1",)),
        ("1, 0", ("1", "0")),
        ("0,5,1", ("0",)),
        ("GPU-b", ("GPU-b",)),
        ("GPU-c,0", ()),
    ],
)
def test_visible_devices_are_those_that_cuda_would_take(
    visible: str | None, expected: tuple[str, ...]
) -> None:
    assert select_visible(("GPU-aa", "GPU-bb"), visible) == expected


def test_gpus_are_asked_of_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{TWO_GPUS}END\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert visible_gpus() == ("1",)
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert visible_gpus() == ()
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert visible_gpus() == ()
