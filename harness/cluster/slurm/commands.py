"""Asking SLURM by its own commands."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable

from models.errors import UserError

NEEDED = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun")


class SlurmError(UserError):
    """A command of SLURM failed, or did not answer in time."""


def require_slurm() -> None:
    """Check that SLURM's commands are here.

    Raises:
        UserError: one is missing.
    """
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"{missing[0]} is not installed here, so no job can be submitted: run the command on a "
            "machine of a SLURM cluster that submits jobs, or without --cluster (CLUSTER=local)"
        )


def ask(command: Iterable[str], timeout: float) -> str:
    """What a command prints.

    Raises:
        SlurmError: it failed, with the first line of its own message, or took longer than `timeout`
            seconds.
    """
    words = list(command)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{words[0]} gave no answer within {timeout:.0f} s") from None
    except OSError as error:
        raise SlurmError(f"{words[0]} cannot be run: {error}") from None
    if done.returncode != 0:
        raise SlurmError(f"{words[0]} failed: {own_words(done.stderr, done.returncode)}")
    return done.stdout


def own_words(message: str, return_code: int = 1) -> str:
    """The line of an error message that says what is wrong, without the command's own prefix."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if not lines:
        return f"exit code {return_code}"
    telling = next((line for line in reversed(lines) if "error:" in line), lines[-1])
    return telling.split("error:", 1)[-1].strip()
