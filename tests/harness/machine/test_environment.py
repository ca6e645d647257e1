from __future__ import annotations

import os
from pathlib import Path

import joblib
import pytest

from harness.machine.environment import cpu_quota, usable_cores


def test_usable_cores_respects_the_affinity_of_the_process() -> None:
    affinity = os.sched_getaffinity(0)
    assert 1 <= usable_cores() <= len(affinity)
    os.sched_setaffinity(0, {min(affinity)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, affinity)


def test_cores_are_counted_as_joblib_does() -> None:
    assert usable_cores() == joblib.cpu_count()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu.max": "something else"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container_is_read_from_both_versions_of_control_groups(
    tmp_path: Path, files: dict[str, str], expected: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == expected


def test_a_quota_of_a_core_and_a_half_counts_as_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000")
    monkeypatch.setattr("harness.machine.environment._CGROUPS", tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    assert usable_cores() == 2
