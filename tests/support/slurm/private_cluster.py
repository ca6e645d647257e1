"""A SLURM of two virtual nodes in a folder of its own: real daemons, own ports, own munge key.

It touches nothing outside its folder: /etc/slurm and /etc/munge stay as they are, and another SLURM
on the same machine is not disturbed. The daemons are children of this process and end with it.

By hand: `python tests/support/slurm/private_cluster.py FOLDER` starts one, prints the lines that
point a shell at it, and takes it down at Ctrl-C.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import psutil

NODES = ("n1", "n2")
CPUS_PER_NODE = 2
LOW_PRIORITY, HIGH_PRIORITY = "low", "high"
"""Partitions; a job in the second one preempts those in the first."""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "setpriv")
_START_SECONDS = 60.0
_TEMPLATE = Path(__file__).with_name("slurm.conf.template")
_TASK_PROLOG = "#!/bin/sh\necho export MASTER_ADDR=127.0.0.1\n"


class ClusterError(Exception):
    """A daemon did not start, or a command failed; the message ends with what it printed."""


def missing_programs() -> list[str]:
    """Those of `PROGRAMS` that are not installed; Debian: slurm-wlm and munge."""
    return [name for name in PROGRAMS if _program(name) is None]


@contextmanager
def private_cluster(folder: Path | None = None) -> Iterator[PrivateCluster]:
    """Starts the daemons, waits for idle nodes, and ends all of it with the context.

    Args:
        folder: for configuration, state and logs; a temporary one by default, which is removed.

    Raises:
        ClusterError: a daemon ended or no node came up.
    """
    # A socket's path has room for 107 characters, which pytest's folders use up.
    own = folder is None
    place = Path(tempfile.mkdtemp(prefix="slurm-")) if folder is None else folder.resolve()
    cluster = PrivateCluster(place)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        if own:
            shutil.rmtree(place, ignore_errors=True)


class PrivateCluster:
    """The daemons of one cluster. `private_cluster` starts and ends them."""

    def __init__(self, folder: Path, requeue_wait: int = 5) -> None:
        """`requeue_wait`: seconds that a requeued job waits before it can start."""
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self.variables = {"SLURM_CONF": str(self.configuration)}
        """What a command needs in its environment to use this cluster."""
        self.user = psutil.Process().username()
        self._requeue_wait = requeue_wait
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, pointed at the cluster."""
        return {**os.environ, **self.variables}

    def start(self) -> None:
        self._write_files()
        munge = [f"--{name}={self.folder}/munge.{name}" for name in ("socket", "key-file")]
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("pid", "log", "seed")]
        self._start_daemon("munged", ["--foreground", "--force", *munge, *files])
        self._wait(lambda: (self.folder / "munge.socket").exists(), "munged makes no socket")
        self._start_daemon("slurmctld", ["-D", "-f", str(self.configuration)])
        for node in NODES:
            self.start_node(node)
        self.wait_idle()

    def stop(self) -> None:
        """Ends the jobs and the daemons, however far `start` came. Never raises for one of them."""
        self._kill(self._job_processes())
        for name in reversed(self._daemons):
            self._daemons[name].terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._kill(self._job_processes())

    def start_node(self, node: str) -> None:
        """Starts a node's slurmd, also after `kill_node`."""
        self._start_daemon("slurmd", ["-D", "-N", node, "-f", str(self.configuration)], node)

    def kill_node(self, node: str) -> None:
        """SIGKILL to a node's slurmd and to all that runs there, as when its power fails."""
        daemon = self._daemons.pop(f"slurmd.{node}")
        daemon.kill()
        daemon.wait()
        self._kill(self._job_processes(node))

    def run(self, *command: str, timeout: float = 60.0) -> str:
        """What a command prints on stdout.

        Raises:
            ClusterError: it failed.
        """
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        if done.returncode != 0:
            raise ClusterError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def job_states(self) -> dict[str, str]:
        """Job id (`7`, or `7_0` in an array) -> state, of all that the controller remembers."""
        lines = self.run("squeue", "--all", "--noheader", "--array", "--states=all", "-o", "%i %T")
        return dict(line.split() for line in lines.splitlines())

    def active_jobs(self) -> list[str]:
        """The ids of those that wait or run."""
        over = {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}
        return [job for job, state in self.job_states().items() if state not in over]

    def node_of(self, job: str) -> str:
        """Where a job of one node runs."""
        return self.run("squeue", "--noheader", f"--jobs={job}", "-o", "%N").strip()

    def seconds_run(self, job: str) -> int:
        """For how long a job has been running."""
        shown = self.run("squeue", "--noheader", f"--jobs={job}", "-O", "StartTime").strip()
        return int((datetime.now() - datetime.fromisoformat(shown)).total_seconds())

    def ended_jobs(self) -> list[dict[str, str]]:
        """What SLURM wrote at each end of a job: JobId, Name, JobState and so on, oldest first."""
        path = self.folder / "ended_jobs.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]

    def cancel_all(self) -> None:
        """Ends all jobs and waits until the nodes are idle."""
        self.run("scancel", "--user", self.user)
        self.wait_idle()

    def wait_idle(self, timeout: float = _START_SECONDS) -> None:
        """Waits until no node is down or busy."""

        def idle() -> bool:
            with suppress(ClusterError):
                states = self.run("sinfo", "--noheader", "--Node", "-o", "%T").split()
                return set(states) == {"idle"}
            return False

        self._wait(idle, "the nodes are not idle", timeout)

    def _write_files(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("controller", *(f"spool.{node}" for node in NODES)):
            (self.folder / name).mkdir(exist_ok=True)
        key = self.folder / "munge.key-file"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        prolog = self.folder / "task_prolog.sh"
        prolog.write_text(_TASK_PROLOG)
        prolog.chmod(0o755)
        controller_port, *node_ports = _free_ports(1 + len(NODES))
        text = _TEMPLATE.read_text().format(
            folder=self.folder,
            host=socket.gethostname().split(".")[0],
            user=self.user,
            controller_port=controller_port,
            nodes=",".join(NODES),
            node_ports=",".join(map(str, node_ports)),
            cpus=CPUS_PER_NODE,
            requeue_wait=self._requeue_wait,
            low=LOW_PRIORITY,
            high=HIGH_PRIORITY,
        )
        self.configuration.write_text(text)

    def _start_daemon(self, program: str, arguments: Sequence[str], node: str = "") -> None:
        name = f"{program}.{node}" if node else program
        path = _program(program)
        if path is None:
            raise ClusterError(f"{program} is not installed (Debian: slurm-wlm and munge)")
        with (self.folder / f"{name}.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                # The kernel ends the daemon when this process dies without a clean-up.
                ["setpriv", "--pdeathsig", "TERM", path, *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for this process alone
            )

    def _wait(self, ready: Callable[[], bool], what: str, timeout: float = _START_SECONDS) -> None:
        deadline = time.monotonic() + timeout
        while not ready():
            ended = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if ended:
                raise ClusterError(f"{ended[0]} ended:\n{self._log(ended[0])}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{what} after {timeout:.0f} s:\n{self._log('slurmctld')}")
            time.sleep(0.1)

    def _log(self, daemon: str) -> str:
        return (self.folder / f"{daemon}.log").read_text(errors="replace")[-2000:]

    def _job_processes(self, node: str | None = None) -> list[psutil.Process]:
        """The processes of jobs (on `node` alone where one is named), their slurmstepds first."""
        steps, tasks = set(), set()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                variables = process.environ()
                ours = variables.get("SLURM_CONF") == str(self.configuration)
                where = variables.get("SLURMD_NODENAME")
                if ours and where is not None and node in (None, where):
                    tasks.add(process)
                    steps |= {each for each in process.parents() if each.name() == "slurmstepd"}
        return [*steps, *(tasks - steps)]

    @staticmethod
    def _kill(processes: Sequence[psutil.Process]) -> None:
        for process in processes:
            with suppress(psutil.Error):
                process.kill()


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


def _free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listened on a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def main(folder: Path) -> None:
    """Keeps a cluster up until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with private_cluster(folder) as cluster, suppress(KeyboardInterrupt):
        for name, value in cluster.variables.items():
            print(f"export {name}={value}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
