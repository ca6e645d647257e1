from __future__ import annotations

import os

from harness.machine.environment import usable_cores


def test_usable_cores_respects_the_affinity_of_the_process() -> None:
    affinity = os.sched_getaffinity(0)
    assert 1 <= usable_cores() <= len(affinity)
    os.sched_setaffinity(0, {min(affinity)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, affinity)
