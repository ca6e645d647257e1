from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta

import pytest

from harness.machine.environment import ROOT
from harness.machine.place import TASK_VARIABLES, Place, place_from_environment
from harness.processes import meeting
from harness.processes.jobs import LostTouchError
from harness.processes.meeting import Meeting
from harness.processes.pool import worker_environment
from models.errors import UserError

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}
TASK = {
    "SLURM_JOB_ID": "4242",
    "SLURM_JOB_NAME": "python",
    "SLURM_STEP_ID": "1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODELIST": "node[03-07],other",
}
"""What srun tells a task that was started with --ntasks=4."""

MEET = """
from harness.machine.place import place_from_environment
from harness.processes.meeting import Meeting

with Meeting(place_from_environment()) as meeting:
    group = meeting.begin(cuda=False)
    found = group.gather(group.rank)
    if found is not None:
        print(found)
"""


def test_torchrun_tells_which_process_this_is() -> None:
    assert place_from_environment(TORCHRUN) == Place(3, 4, 1, "node1", 29500, False)
    assert place_from_environment({}) is None
    incomplete = {key: value for key, value in TORCHRUN.items() if key != "MASTER_PORT"}
    with pytest.raises(UserError, match="MASTER_PORT"):
        place_from_environment(incomplete)


@pytest.mark.parametrize("rank", ["4", "5", "-1"])
def test_a_rank_beyond_the_number_of_processes_is_refused(rank: str) -> None:
    with pytest.raises(UserError, match="RANK and WORLD_SIZE"):
        place_from_environment({**TORCHRUN, "RANK": rank})


def test_srun_tells_which_task_this_is_and_steps_have_ports_of_their_own() -> None:
    place = place_from_environment(TASK)
    assert place is not None
    assert (place.rank, place.size, place.local_rank, place.address) == (2, 4, 0, "node03")
    later = place_from_environment({**TASK, "SLURM_STEP_ID": "2"})
    assert later is not None
    assert later.port != place.port
    # sbatch's script itself is no task.
    assert place_from_environment({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) is None


@pytest.mark.parametrize(
    "shell",
    [{"SLURM_JOB_NAME": "bash"}, {"SLURM_JOB_NAME": "interactive"}, {"SLURM_PTY_PORT": "39000"}],
)
def test_what_is_typed_in_an_interactive_shell_is_alone(shell: dict[str, str]) -> None:
    typed = {**TASK, **shell, "SLURM_TASK_PID": "1"}
    assert place_from_environment(typed) is None
    assert place_from_environment({**TASK, **shell}) is None
    started_by_srun = {**typed, "SLURM_TASK_PID": str(os.getpid())}
    place = place_from_environment(started_by_srun)
    assert place is not None
    assert place.rank == 2


def test_workers_are_none_of_the_tasks_that_their_parent_is_one_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {**TASK, **TORCHRUN}.items():
        monkeypatch.setenv(name, value)
    environment = worker_environment(2, {})
    assert not environment.keys() & set(TASK_VARIABLES)
    assert place_from_environment(environment) is None
    assert environment["SLURM_JOB_ID"] == "4242"


def test_tasks_of_srun_with_ntasks_alone_find_each_other() -> None:
    """Without NTASKS_PER_NODE, which `srun --ntasks=2` does not set."""
    told = {**TASK, "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
    told |= {"SLURM_NODELIST": "localhost", "SLURM_JOB_ID": str(os.getpid())}
    tasks = [
        subprocess.Popen(
            [sys.executable, "-c", MEET],
            cwd=ROOT,
            env={**os.environ, **told, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("1", "0")
    ]
    printed = [task.communicate(timeout=120)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0]
    assert printed == ["", "[0, 1]\n"]


def test_a_port_that_there_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="MASTER_PORT"):
        place_from_environment({**TORCHRUN, "MASTER_PORT": "99999999"})


def test_who_waits_says_for_whom_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Torch's own waits write lines of C++ whenever a time is over."""
    monkeypatch.setattr(meeting, "_NOTICE", timedelta(seconds=0.2))
    port = 15000 + os.getpid() % 10000
    with (
        pytest.raises(LostTouchError, match="processes 1, 2 did not come"),
        Meeting(Place(0, 3, 0, "127.0.0.1", port, False), timedelta(seconds=3)) as met,
    ):
        met.begin(cuda=False)
    told = capfd.readouterr().err.splitlines()
    assert told == ["process 0 of 3 waits for processes 1, 2, which torchrun or srun should start"]


def test_who_waits_for_the_leading_process_says_so_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(meeting, "_NOTICE", timedelta(seconds=0.2))
    port = 15000 + (os.getpid() + 1) % 10000
    with (
        pytest.raises(UserError, match=f"process 1 of 3 did not find the others at .*:{port}"),
        Meeting(Place(1, 3, 1, "127.0.0.1", port, False), timedelta(seconds=1)),
    ):
        pass
    told = capfd.readouterr().err.splitlines()
    assert told == [f"process 1 of 3 waits for process 0 at 127.0.0.1:{port}"]


def test_a_meeting_place_without_a_machine_is_refused_at_once() -> None:
    nowhere = Place(0, 2, 0, "no-such-host.invalid", 29500, False)
    with (
        pytest.raises(UserError, match="did not find the others at no-such-host"),
        Meeting(nowhere),
    ):
        pass
