"""The script that sbatch is given, read as bash and SLURM read it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.cluster.slurm.launcher import executor, of_one_process, script_text
from harness.config.cluster import SlurmCluster
from harness.config.load import load_cluster
from harness.machine.environment import EXPERIMENTS

pytestmark = pytest.mark.skipif(shutil.which("srun") is None, reason="submitit looks for srun")


def script(folder: Path, *overrides: str, count: int = 3, single: bool = False) -> str:
    config = load_cluster("slurm", overrides, EXPERIMENTS)
    assert isinstance(config, SlurmCluster)
    if single:
        config = of_one_process(config)
    made = executor(config, folder, "20270101-000000-abcdef", "mine at smoke")
    return script_text(made, count)


def options(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line.startswith("#SBATCH --")]
    pairs = (line.removeprefix("#SBATCH --").partition("=") for line in lines)
    return {name: value.strip("'") for name, _, value in pairs}


def test_every_field_becomes_an_option(tmp_path: Path) -> None:
    text = script(
        tmp_path,
        "cluster.partition=gpu",
        "cluster.account=us",
        "cluster.qos=high",
        "cluster.constraint=a100&nvlink",
        "cluster.nodes=2",
        "cluster.tasks_per_node=4",
        "cluster.gpus_per_node=4",
        "cluster.cpus_per_task=8",
        "cluster.memory=64GB",
        "cluster.time=1-00:00:00",
        "cluster.max_parallel=2",
        "cluster.signal_seconds=300",
        "cluster.additional.nodelist=node7",
        "cluster.additional.exclusive=true",
    )
    found = options(text)
    expected = {
        "partition": "gpu",
        "account": "us",
        "qos": "high",
        "constraint": "a100&nvlink",
        "nodes": "2",
        "ntasks-per-node": "4",
        "gpus-per-node": "4",
        "cpus-per-task": "8",
        "mem": "64GB",
        "time": "1440",
        "array": "0-2%2",
        "signal": "USR1@300",
        "requeue": "",
        "nodelist": "node7",
        "exclusive": "",
        "job-name": "harness-20270101-000000-abcdef",
        "open-mode": "append",
    }
    assert found.items() >= expected.items()
    srun = next(line for line in text.splitlines() if line.startswith("srun"))
    assert "--cpus-per-task=8" in srun
    assert "--kill-on-bad-exit=1" in srun
    assert "--wait=0" in srun


def test_what_is_null_is_left_to_the_cluster(tmp_path: Path) -> None:
    names = options(script(tmp_path)).keys()
    assert not names & {
        "partition",
        "account",
        "qos",
        "constraint",
        "mem",
        "gpus-per-node",
        "wckey",
    }


def test_one_job_is_no_array(tmp_path: Path) -> None:
    assert "array" not in options(script(tmp_path, count=1))


def test_a_job_of_one_process_asks_for_no_more(tmp_path: Path) -> None:
    several = ("cluster.nodes=2", "cluster.tasks_per_node=4", "cluster.gpus_per_node=4")
    found = options(script(tmp_path, *several, count=1, single=True))
    assert (found["nodes"], found["ntasks-per-node"], found["gpus-per-node"]) == ("1", "1", "1")


def test_setup_lines_come_before_the_trial_and_bash_takes_the_script(tmp_path: Path) -> None:
    text = script(tmp_path, "cluster.setup=[module load cuda]")
    assert text.index("\nmodule load cuda\n") < text.index("\nsrun ")
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_a_process_that_starts_outlives_the_signals(tmp_path: Path) -> None:
    """The start of the command, with a Python that looks what it inherited."""
    text = script(tmp_path, count=1)
    srun = next(line for line in text.splitlines() if line.startswith("srun"))
    command = srun[srun.index("sh -c") : srun.index(" -u -m submitit")]
    numbers = "signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM"
    look = f"import signal; print(*(signal.getsignal(n).name for n in ({numbers})))"
    done = subprocess.run(
        ["bash", "-c", f'{command} -c "{look}"'], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["SIG_IGN"] * 3
