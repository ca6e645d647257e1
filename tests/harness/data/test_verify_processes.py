from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.data.sources.class_folders import FolderSource
from harness.data.verify import read_each
from harness.machine.environment import ROOT
from models.errors import UserError
from tests.support.stand_ins.memory_source import MemorySource

IDS = [f"c/{number:03}.png" for number in range(150)]


read = FolderSource.read


@pytest.fixture
def source(tmp_path: Path) -> FolderSource:
    """Files of 0 to 149 bytes."""
    (tmp_path / "c").mkdir()
    for number, name in enumerate(IDS):
        (tmp_path / name).write_bytes(b"x" * number)
    source = FolderSource(tmp_path)
    assert [entry.id for entry in source.entries()] == IDS
    return source


def readers(parent: psutil.Process | None = None) -> list[psutil.Process]:
    children = (psutil.Process() if parent is None else parent).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_ids(source: FolderSource, processes: int) -> None:
    turned = IDS[::-1]
    sizes = []
    for content in read_each(read, source, turned, processes):
        sizes.append(len(content))
        assert len(readers()) == (0 if processes == 1 else processes)
    assert sizes == [*range(149, -1, -1)]
    assert not readers()


@pytest.mark.parametrize("processes", [1, 2])
def test_no_ids_give_nothing(processes: int) -> None:
    assert [*read_each(read, MemorySource({}), [], processes)] == []


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_the_work_arrives(source: FolderSource, processes: int) -> None:
    (source.path / IDS[70]).unlink()
    with pytest.raises(UserError, match=r"c/070.png in .* cannot be read"):
        list(read_each(read, source, IDS, processes))
    assert not readers()


def test_who_stops_early_leaves_no_process(source: FolderSource) -> None:
    found = read_each(read, source, IDS, 2)
    next(found)
    assert len(readers()) == 2
    found.close()
    assert not readers()


def test_a_process_that_is_killed_is_told(source: FolderSource) -> None:
    (source.path / IDS[140]).unlink()
    # Opening it never ends.
    os.mkfifo(source.path / IDS[140])
    found = read_each(read, source, IDS, 2)
    next(found)
    for child in readers():
        child.kill()
    with pytest.raises(UserError, match=r"was killed, .*--processes 1") as caught:
        list(found)
    assert str(source.path) in str(caught.value)


ENDLESS = """
import time
from harness.data.verify import read_each

def sleep(source, entry_id):
    time.sleep(60)

if __name__ == "__main__":
    list(read_each(sleep, None, ["a", "b"], 2))
"""


def test_readers_end_with_a_parent_that_is_killed(
    tmp_path: Path, subprocess_environment: dict[str, Any]
) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    parent = subprocess.Popen([sys.executable, script], cwd=ROOT, env=subprocess_environment)
    try:
        children = wait_for_readers(psutil.Process(parent.pid), 2)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    for child in alive:
        child.kill()
    assert not alive


def wait_for_readers(parent: psutil.Process, count: int) -> list[psutil.Process]:
    """The readers, once all are at work: they then have a second thread."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = readers(parent)
        if len(found) == count and all(child.num_threads() > 1 for child in found):
            return found
        time.sleep(0.05)
    raise AssertionError("the readers did not start")
