"""Where a result comes from: the code's commit, the versions of the libraries, the device."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from pathlib import Path

from harness.machine.environment import installed_versions, usable_cores
from harness.vocabulary import names

PACKAGES = (
    "torch",
    "pytorch-lightning",
    "torchmetrics",
    "torch-fidelity",
    "diffusers",
    "timm",
    "mlflow",
    "numpy",
    "pillow",
)
_CODE = (
    "models",
    "harness",
    "reports",
    "benchmarks",
    "experiments",
    "pyproject.toml",
    "constraints.txt",
)
"""What a figure can depend on; files that a command was asked to write beside it change none."""


def provenance_tags(
    root: Path, *, gpu: str | None = None, threads: int | None = None
) -> dict[str, str]:
    """The surroundings of a run started now, as MLflow tags which name no machine and no user.

    Imports none of the libraries. Outside of a git checkout there is no commit; `gpu` is the name
    of the GPU, if one is used; the threads are all that this process may use if left out.
    """
    is_checkout = _git(root, "rev-parse", "--show-prefix") == ""
    commit = _git(root, "rev-parse", "--verify", "HEAD") if is_checkout else None
    status = _git(root, "status", "--porcelain", "--", *_CODE) if is_checkout else None
    versions = {"python": platform.python_version(), **installed_versions(PACKAGES)}
    tags = {
        names.TAG_GIT_COMMIT: commit or "not a git checkout",
        names.TAG_DEVICE: f"{gpu or cpu_model()}, {threads or usable_cores()} CPU threads",
        names.TAG_VERSIONS: json.dumps(versions),
    }
    if status is not None:
        # Files of the code that differ from the commit, or are not in it.
        tags[names.TAG_GIT_DIRTY] = "true" if status else "false"
    return tags


def cpu_model() -> str:
    """The CPU as its maker names it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1].strip() if model else platform.processor() or platform.machine()


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, stripped; None where it fails or is not there."""
    try:
        result = subprocess.run(
            # Git refuses a checkout of another user's ("dubious ownership"), since its settings may
            # run programs; whoever asks here runs the code of that checkout already.
            ["git", "-c", "safe.directory=*", "-C", str(root), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=30,
            # Without it `git status` takes a lock, and trials that start together would collide.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
