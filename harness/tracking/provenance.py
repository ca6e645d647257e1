"""Where a result comes from: the code's commit, the versions of the libraries, the device."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
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
NOT_A_CHECKOUT = "not a git checkout"


@dataclass(frozen=True)
class Provenance:
    """What to know of the surroundings of a run. It names no machine and no user."""

    commit: str | None
    """Full hash of the commit, or None outside a git checkout."""
    dirty: bool | None
    """Whether files differ from the commit or are not in it; None outside a git checkout."""
    versions: Mapping[str, str]
    """Versions of Python and of the libraries that are installed, by name."""
    device: str
    """Model of the GPU, or of the CPU."""
    threads: int
    """CPU threads that the run may use."""

    def tags(self) -> dict[str, str]:
        """All of it as MLflow tags."""
        tags = {
            names.TAG_GIT_COMMIT: self.commit or NOT_A_CHECKOUT,
            names.TAG_DEVICE: f"{self.device}, {self.threads} CPU threads",
            names.TAG_VERSIONS: json.dumps(dict(self.versions)),
        }
        if self.dirty is not None:
            tags[names.TAG_GIT_DIRTY] = "true" if self.dirty else "false"
        return tags


def collect(root: Path, gpu: str | None = None, threads: int | None = None) -> Provenance:
    """Look up the provenance of a run started now. Imports none of the libraries.

    Args:
        root: the repository's root.
        gpu: the GPU's name, where one is used; asking for it needs torch.
        threads: CPU threads of the run; all that this process may use if left out.
    """
    is_checkout = _git(root, "rev-parse", "--show-prefix") == ""
    status = _git(root, "status", "--porcelain") if is_checkout else None
    return Provenance(
        commit=_git(root, "rev-parse", "--verify", "HEAD") if is_checkout else None,
        dirty=None if status is None else status != "",
        versions={"python": platform.python_version(), **installed_versions(PACKAGES)},
        device=gpu or cpu_model(),
        threads=threads or usable_cores(),
    )


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
