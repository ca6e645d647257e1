"""A program that runs a pool: `pool_parent.py FOLDER FUNCTION`.

It has no main guard on purpose, and notes each time that it is imported.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from harness.processes.jobs import Job
from harness.processes.pool import run_jobs
from harness.processes.signals import Interrupted

folder = Path(sys.argv[1])
with (folder / "imports").open("a") as imports:
    imports.write(f"{os.getpid()}\n")
jobs = [Job(f"job{i}", {"folder": str(folder)}, folder / f"job{i}.log") for i in range(3)]
try:
    run_jobs(
        jobs,
        f"pool_targets:{sys.argv[2]}",
        workers=2,
        threads_per_worker=1,
        on_event=lambda event: print(event, flush=True),
    )
except Interrupted as error:
    sys.exit(error.exit_code)
