"""Proof that a change of the code leaves every number as it was.

    python tests/support/records.py record FOLDER     # at the commit before, and at the one after
    python tests/support/records.py compare FOLDER OTHER

A record holds what `harness config` prints of every ablation at every scale (so every hash), and of
a few short trials the weights, the samples and the table without what a clock measured. It calls
the command line alone, so that it runs at any commit.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

ABLATIONS = Path("experiments/ablation")
SCALES = Path("experiments/scale")
SHORT = {
    "no_differential": ["--seeds", "2"],
    "baselines": [
        "--seeds",
        "1",
        "objective.name=ddpm",
        "sample.sampler=ddpm",
        "train.steps=12",
        "sample.steps=5",
        "sample.guidance_scale=1.5",
    ],
}
CLOCKED = (
    "seconds",
    "throughput",
    "per_second",
    "images_per",
    "memory",
    "speed",
    "run_id",
    "commit",
)
"""Parts of the names of columns whose values differ from one run of the same code to the next."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record").add_argument("folder", type=Path)
    compare_command = commands.add_parser("compare")
    compare_command.add_argument("folder", type=Path)
    compare_command.add_argument("other", type=Path)
    options = parser.parse_args()
    if options.command == "record":
        record(options.folder)
        return 0
    differences = compare(options.folder, options.other)
    print("\n".join(differences) or "equal")
    return 1 if differences else 0


def record(folder: Path) -> None:
    """Write the record of the code in the present folder."""
    (folder / "configs").mkdir(parents=True)
    for scale in sorted(SCALES.glob("*.yaml")):
        for ablation in sorted(ABLATIONS.glob("*.yaml")):
            printed = _harness("config", ablation.stem, "--scale", scale.stem)
            (folder / "configs" / f"{scale.stem}-{ablation.stem}.txt").write_text(printed)
    runs = folder.absolute() / "runs"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder.absolute()}/mlflow.db"}
    for name, options in SHORT.items():
        command = [sys.executable, "-m", "harness", "ablation", name, "--scale", "smoke"]
        subprocess.run(
            [*command, "--runs-dir", runs, *options], check=True, env=environment, text=True
        )
    digests = {
        str(path.relative_to(runs)): _content(path)
        for pattern in ("*/*/*/ema.safetensors", "*/*/*/samples.npz")
        for path in sorted(runs.glob(pattern))
    }
    (folder / "digests.json").write_text(json.dumps(digests, indent=1))
    for table in runs.glob("reports/*/*/table.csv"):
        rows = list(csv.DictReader(table.open()))
        kept = [
            {name: value for name, value in row.items() if not any(c in name for c in CLOCKED)}
            for row in rows
        ]
        (folder / f"table-{table.parent.name}.json").write_text(json.dumps(kept, indent=1))


def compare(folder: Path, other: Path) -> list[str]:
    """Every file of a record that is missing or different in the other one."""
    names = {
        path.relative_to(root)
        for root in (folder, other)
        for path in [*root.glob("configs/*"), *root.glob("*.json")]
    }
    return [str(name) for name in sorted(names) if not _equal(folder / name, other / name)]


def _equal(a: Path, b: Path) -> bool:
    return a.exists() and b.exists() and a.read_bytes() == b.read_bytes()


def _harness(*arguments: str) -> str:
    sys.path.insert(0, "")
    printed = io.StringIO()
    sys.argv = ["harness", *arguments]
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        runpy.run_module("harness", run_name="__main__", alter_sys=False)
    return printed.getvalue()


def _content(path: Path) -> str:
    arrays = load_file(path) if path.suffix == ".safetensors" else dict(np.load(path))
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
