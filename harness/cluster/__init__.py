"""Where trials run: in processes of this machine or jobs of a cluster; and how they are shown.

From the configuration of a cluster to its launcher.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.cluster.launcher import Launcher
from harness.cluster.this_machine import LocalLauncher
from harness.config.cluster import ClusterConfig, LocalCluster, SlurmCluster
from models.errors import UserError


def make_launcher(
    config: ClusterConfig,
    runs_dir: Path,
    label: str,
    notice: Callable[[str], None],
    *,
    detach: bool = False,
) -> Launcher:
    """The launcher that a configuration describes.

    Args:
        config: where jobs run.
        runs_dir: of their results.
        label: what the jobs are for, in words.
        notice: told what the user should know.
        detach: leave the jobs to themselves once they are handed over.

    Raises:
        UserError: the jobs would end with this process, but it should leave them.
    """
    match config:
        case LocalCluster():
            if detach:
                raise UserError(
                    "--detach leaves jobs to a scheduler, but the trials would run in processes of "
                    "this command: add --cluster slurm (CLUSTER=slurm), or use nohup or tmux"
                )
            return LocalLauncher(config, notice)
        case SlurmCluster():
            # submitit takes a moment to import.
            from harness.cluster.slurm.launcher import SlurmLauncher

            return SlurmLauncher(config, runs_dir, label, detach, notice)
