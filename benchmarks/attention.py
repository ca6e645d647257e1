"""`python -m benchmarks attention`: what one attention block costs against the number of tokens.

Latency, throughput, peak memory of tensors, FLOPs and the share of this machine's own peak, of all
variants in one run, beside diffusers' attention on the same weights. The claim of linear attention
is about growth, so the exponent of growth and the number of tokens from which softmax is slower are
printed too.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.subjects import Pass, Setting, build_block
from benchmarks.turns import crossover, growth_exponent, take_turns
from harness.cli.options import spec_of
from harness.evaluation.cost import peak_tensor_bytes
from harness.machine.files import check_folder
from models.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

BASELINE = "sana"
PASSES: tuple[Pass, ...] = ("forward", "forward_backward")
_MATMUL_SIDE = 1024
_PEAK_MATMUL = "matmul"


def run(options: argparse.Namespace) -> int:
    """Time all subjects at all numbers of tokens; print, write and draw what they take.

    Raises:
        UserError: a subject or a number of tokens that cannot be built, or no GPU where one is
            asked for.
    """
    setting = prepare(options)
    if options.output is not None:
        check_folder(options.output, "--output")
    frame = _measure_all(options.subjects, options.tokens, setting, options.seconds)
    grown = _growth(frame)
    usable = _sdpa_backends(setting, max(options.tokens))
    print(f"\nscaled_dot_product_attention can use here: {', '.join(usable)}")
    for measure, title in (
        ("ratio_to_sana", "time as a multiple of sana's"),
        ("median_seconds", "median seconds"),
        ("peak_tensor_bytes", "peak bytes of tensors"),
    ):
        wide = frame.pivot_table(
            index=["pass", "subject"], columns="tokens", values=measure, sort=False
        )
        print(f"\n{title}\n{wide.to_string(float_format=lambda value: f'{value:.4g}')}")
    print(f"\n{grown.to_string(index=False, float_format=lambda value: f'{value:.3g}')}")
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        frame.to_csv(options.output / "attention.csv", index=False)
        grown.to_csv(options.output / "growth.csv", index=False)
        _draw(frame, options.output / "attention")
        print(f"\n{options.output}")
    return 0


def prepare(options: argparse.Namespace) -> Setting:
    """The setting of the options, and PyTorch with their number of threads.

    Raises:
        UserError: no GPU where one is asked for.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no GPU here; leave it out")
    torch.set_num_threads(options.threads)
    return spec_of(Setting, options)


def _measure_all(
    words: Sequence[str], token_counts: Sequence[int], setting: Setting, seconds: float
) -> pd.DataFrame:
    """A row a subject, number of tokens and pass.

    `macs` and `flops` are of one pass, `peak_tensor_bytes` what it makes, and `share_of_peak` is
    its FLOPs a second over those of a square matrix product in the same rounds.
    """
    import pandas as pd

    shapes = {count: setting.shape(count) for count in token_counts}
    rows = []
    for count, shape in shapes.items():
        subjects = {
            word: build_block(word, shape).to(setting.device)
            for word in dict.fromkeys([*words, BASELINE])
        }
        for kind in PASSES:
            print(f"{count} tokens, {kind.replace('_', ' and ')}")
            rows += _measure(subjects, count, kind, setting, seconds)
    return pd.DataFrame(rows)


def _measure(
    subjects: Mapping[str, nn.Module], count: int, kind: Pass, setting: Setting, seconds: float
) -> list[dict[str, object]]:
    tokens = setting.tokens(count)
    work = {name: setting.work(block, tokens, kind) for name, block in subjects.items()}
    flops = {name: _flops(piece) for name, piece in work.items()}
    device = torch.device(setting.device)
    memory = {name: peak_tensor_bytes(piece, device) for name, piece in work.items()}
    if setting.compile:
        for block in subjects.values():
            block.compile()
    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    side = torch.randn(_MATMUL_SIDE, _MATMUL_SIDE, device=device, dtype=dtype)
    timings = take_turns({**work, _PEAK_MATMUL: lambda: side @ side}, seconds=seconds)
    peak_flops = 2 * _MATMUL_SIDE**3 / median(timings.pop(_PEAK_MATMUL))
    rows = []
    for name, times in timings.items():
        lower, middle, upper = quantiles(times, n=4, method="inclusive")
        rows.append(
            {
                "subject": name,
                "tokens": count,
                "pass": kind,
                "median_seconds": middle,
                "lower_quartile_seconds": lower,
                "upper_quartile_seconds": upper,
                "rounds": len(times),
                "ratio_to_sana": middle / median(timings[BASELINE]),
                "tokens_per_second": setting.batch * count / middle,
                "peak_tensor_bytes": memory[name],
                "macs": flops[name] // 2,
                "flops": flops[name],
                "share_of_peak": flops[name] / middle / peak_flops,
            }
        )
    return rows


def _flops(work: Callable[[], None]) -> int:
    # The fused kernels of attention are counted as the two products that they are.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def _sdpa_backends(setting: Setting, count: int) -> list[str]:
    """Those of PyTorch's scaled_dot_product_attention that take these shapes here."""
    rows = torch.zeros(1, setting.heads, count, setting.width // setting.heads)
    rows = rows.to(setting.device)
    usable = []
    for name in ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH"):
        try:
            with sdpa_kernel(getattr(SDPBackend, name)):
                nn.functional.scaled_dot_product_attention(rows, rows, rows)
        except RuntimeError:
            continue
        usable.append(name.lower())
    return usable


def _growth(frame: pd.DataFrame) -> pd.DataFrame:
    """For each subject and pass: the exponent of growth of time and of memory, over the larger
    half of the numbers of tokens, and the number of tokens from which it beats softmax (NaN where
    it never does)."""
    import pandas as pd

    frame = frame.sort_values("tokens", kind="stable")
    lines = []
    for (kind, subject), part in frame.groupby(["pass", "subject"], sort=False):
        softmax = frame[(frame["pass"] == kind) & (frame["subject"] == "softmax")]
        from_tokens = math.nan
        if len(softmax) == len(part) and subject != "softmax":
            times = (list(rows["median_seconds"]) for rows in (part, softmax))
            from_tokens = crossover(list(part["tokens"]), *times)
        larger = part.iloc[len(part) // 2 :] if len(part) > 3 else part
        lines.append(
            {
                "pass": kind,
                "subject": subject,
                "time_exponent": growth_exponent(larger["tokens"], larger["median_seconds"]),
                "memory_exponent": growth_exponent(larger["tokens"], larger["peak_tensor_bytes"]),
                "faster_than_softmax_from_tokens": from_tokens,
            }
        )
    return pd.DataFrame(lines)


def _draw(frame: pd.DataFrame, path: Path) -> None:
    """Latency and memory against tokens, both on log scales, one line a subject."""
    import seaborn as sns

    measures = {"median_seconds": "seconds", "peak_tensor_bytes": "peak bytes of tensors"}
    with sns.axes_style("whitegrid"), sns.plotting_context("paper"):
        grid = sns.relplot(
            frame.melt(["subject", "tokens", "pass"], list(measures)),
            kind="line",
            x="tokens",
            y="value",
            row="variable",
            col="pass",
            hue="subject",
            style="subject",
            palette="colorblind",
            markers=True,
            height=3.25,
            facet_kws={"sharey": False},
        )
        ticks = sorted(frame["tokens"].unique())
        grid.set(xscale="log", yscale="log", xticks=ticks, xticklabels=ticks)
        for (measure, kind), axis in grid.axes_dict.items():
            axis.set(ylabel=measures[measure], title=kind.replace("_", " and "))
            axis.minorticks_off()
        grid.tight_layout()
        grid.savefig(path.with_suffix(".png"), dpi=150)
        grid.savefig(path.with_suffix(".pdf"))
