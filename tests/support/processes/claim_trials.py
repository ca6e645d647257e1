"""What a process of its own does to a study, with nothing to train."""

from __future__ import annotations

import time
from multiprocessing.queues import SimpleQueue

from harness.search.config import SearchSpec
from harness.search.study import claimed_trial


def take_all(spec: SearchSpec, taken: SimpleQueue[int]) -> None:
    """Take and complete trials until none is left, and tell the number of each."""
    while True:
        with claimed_trial(spec) as claimed:
            if claimed is None:
                return
            study, trial = claimed
            taken.put(trial.number)
            time.sleep(0.05)
            study.tell(trial.number, trial.params["attention.lambda_init"])


def hold_one(spec: SearchSpec, taken: SimpleQueue[int]) -> None:
    """Take a trial, tell its number, and keep it until the process is killed."""
    with claimed_trial(spec) as claimed:
        assert claimed is not None
        taken.put(claimed[1].number)
        time.sleep(600)
