"""`python -m benchmarks profile`: which operations the time of one attention block goes to."""

from __future__ import annotations

import argparse
import os

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.attention import prepare
from benchmarks.subjects import build_block
from benchmarks.turns import WARM_UP_ROUNDS
from harness.machine.environment import RUNS
from harness.machine.files import atomic_path, check_writable

DEAREST = 10


def run(options: argparse.Namespace) -> int:
    """Record some forward and backward passes; print the dearest operations and write a trace.

    Times are those that an operation takes itself, without the operations that it calls.

    Raises:
        UserError: a block that cannot be built, or a file that cannot be written.
    """
    import pandas as pd

    setting = prepare(options)
    word, count = options.subject, options.tokens
    output = options.output or RUNS / "profiles" / f"{word.replace(':', '-')}-{count}.json"
    block = build_block(word, setting.shape(count)).to(setting.device)
    check_writable(output)
    if setting.compile:
        block.compile()
    work = setting.work(block, setting.tokens(count), "forward_backward")
    for _ in range(WARM_UP_ROUNDS):
        work()
    on_gpu = setting.device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    # Otherwise the profiler says on stderr when it starts, and that it finds no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    # Without accumulated events, a second profile of one process would hold those of the first.
    with profile(activities=activities, acc_events=True) as recorded:
        for _ in range(options.rounds):
            work()
        if on_gpu:
            torch.cuda.synchronize()
    time = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = [
        {
            "operation": event.key,
            "calls a pass": event.count / options.rounds,
            "ms a pass": getattr(event, time) / 1000 / options.rounds,
        }
        for event in recorded.key_averages()
    ]
    frame = pd.DataFrame(events).sort_values("ms a pass", ascending=False)
    frame["share"] = frame["ms a pass"] / frame["ms a pass"].sum()
    print(
        f"{word}, {count} tokens, forward and backward, {options.rounds} rounds: the dearest of "
        f"{len(frame)} operations, {'GPU' if on_gpu else 'CPU'} time without what they call"
    )
    formats = ("{}".format, "{:g}".format, "{:.3f}".format, "{:.1%}".format)
    print(frame.head(DEAREST).to_string(index=False, formatters=formats))
    with atomic_path(output) as temporary:
        recorded.export_chrome_trace(str(temporary))
    print(output)
    return 0
