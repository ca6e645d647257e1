"""What one attention block costs against the number of tokens, all variants in one run.

`python -m benchmarks attention`: latency, throughput, peak memory of tensors, FLOPs and the share
of this machine's own peak, for the forward pass and for forward and backward, beside diffusers'
attention on the same weights. The claim of linear attention is about growth, so the exponent of
growth and the number of tokens from which softmax is slower are printed too.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.subjects import Subject, build_subject, sdpa_backends
from benchmarks.turns import crossover, growth_exponent, take_turns
from harness.evaluation.tensor_memory import peak_tensor_bytes
from models.attention import AttentionShape
from models.attention.base import ValueConvolutionConfig
from models.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

Pass = Literal["forward", "forward_backward"]

BASELINE = "sana"
_MATMUL_SIDE = 1024
_PEAK_MATMUL = "matmul"


@dataclass(frozen=True)
class Setting:
    """What is the same for all rows of one run."""

    width: int
    heads: int
    """The backbone's, for variants that do not choose theirs."""
    batch: int
    convolution: int
    """Size of the convolution of V in tokens; 0 leaves it out."""
    precision: Literal["float32", "bf16"]
    """bf16: parameters in float32, the pass under autocast, as in training."""
    compiled: bool
    device: torch.device
    seconds: float
    """Of one number of tokens and one pass."""


@dataclass(frozen=True)
class Row:
    """One subject at one number of tokens in one pass."""

    subject: str
    tokens: int
    pass_: Pass
    median_seconds: float
    lower_quartile_seconds: float
    upper_quartile_seconds: float
    rounds: int
    ratio_to_sana: float
    tokens_per_second: float
    peak_tensor_bytes: int
    macs: int
    flops: int
    share_of_peak: float
    """FLOPs a second over those of a square matrix product in the same rounds."""


def measure_attention(
    words: Sequence[str],
    token_counts: Sequence[int],
    setting: Setting,
    on_progress: Callable[[str], None],
) -> list[Row]:
    """Time all subjects at all numbers of tokens.

    Args:
        words: as `build_subject` takes them; `sana` is added where it is missing.
        token_counts: each becomes the most nearly square grid of that many tokens.
        setting: the rest.
        on_progress: told before each group of rows.

    Raises:
        UserError: a subject or a number of tokens that cannot be built.
    """
    if min(token_counts) < 1:
        raise UserError(f"--tokens: {min(token_counts)} is no number of tokens; expected 1 or more")
    words = list(dict.fromkeys([*words, BASELINE]))
    rows = []
    for count in token_counts:
        shape = _shape(count, setting)
        subjects = [build_subject(word, shape) for word in words]
        for subject in subjects:
            subject.block.to(setting.device)
        for pass_ in ("forward", "forward_backward"):
            on_progress(f"{count} tokens, {pass_.replace('_', ' and ')}")
            rows += _measure(subjects, count, pass_, setting)
    return rows


def table(rows: Iterable[Row]) -> pd.DataFrame:
    """All rows, a column a field."""
    import pandas as pd

    frame = pd.DataFrame([asdict(row) for row in rows], columns=[f.name for f in fields(Row)])
    return frame.rename(columns={"pass_": "pass"})


def growth(frame: pd.DataFrame) -> pd.DataFrame:
    """For each subject and pass: the exponent of growth of time and of memory, over the larger
    half of the numbers of tokens, and the number of tokens from which it beats softmax (NaN where
    it never does)."""
    import pandas as pd

    lines = []
    for (pass_, subject), part in frame.groupby(["pass", "subject"], sort=False):
        part = part.sort_values("tokens")
        softmax = frame[(frame["pass"] == pass_) & (frame["subject"] == "softmax")]
        softmax = softmax.sort_values("tokens")
        larger = part.iloc[len(part) // 2 :] if len(part) > 3 else part
        sizes = larger["tokens"].tolist()
        from_tokens = math.nan
        if len(softmax) == len(part) and subject != "softmax":
            found = crossover(
                part["tokens"].tolist(),
                part["median_seconds"].tolist(),
                softmax["median_seconds"].tolist(),
            )
            from_tokens = math.nan if found is None else found
        lines.append(
            {
                "pass": pass_,
                "subject": subject,
                "time_exponent": growth_exponent(sizes, larger["median_seconds"].tolist()),
                "memory_exponent": growth_exponent(sizes, larger["peak_tensor_bytes"].tolist()),
                "faster_than_softmax_from_tokens": from_tokens,
            }
        )
    return pd.DataFrame(lines)


def draw(frame: pd.DataFrame, path: Path) -> None:
    """Latency and memory against tokens, both on log scales, one line a subject."""
    import seaborn as sns
    from matplotlib.figure import Figure

    sns.set_theme(style="whitegrid", context="paper")
    figure = Figure(figsize=(9.5, 6.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    measures = (("median_seconds", "seconds"), ("peak_tensor_bytes", "peak bytes of tensors"))
    subjects = frame["subject"].unique().tolist()
    for column, pass_ in enumerate(frame["pass"].unique()):
        part = frame[frame["pass"] == pass_]
        for line, (measure, label) in enumerate(measures):
            axis = axes[line][column]
            sns.lineplot(
                part,
                x="tokens",
                y=measure,
                hue="subject",
                style="subject",
                hue_order=subjects,
                style_order=subjects,
                palette="colorblind",
                markers=True,
                ax=axis,
                legend=line == 0 and column == 0,
            )
            axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label)
            axis.set_title(str(pass_).replace("_", " and ") if line == 0 else "")
            axis.set_xticks(sorted(part["tokens"].unique()), labels=sorted(part["tokens"].unique()))
            axis.minorticks_off()
    figure.savefig(path.with_suffix(".png"), dpi=150)
    figure.savefig(path.with_suffix(".pdf"))


def _measure(subjects: Sequence[Subject], count: int, pass_: Pass, setting: Setting) -> list[Row]:
    stream = torch.Generator().manual_seed(0)
    tokens = torch.randn(setting.batch, count, setting.width, generator=stream).to(setting.device)
    work = {s.name: _work(s.block, tokens, pass_, setting) for s in subjects}
    flops = {name: _flops(piece) for name, piece in work.items()}
    memory = {name: peak_tensor_bytes(piece, setting.device) for name, piece in work.items()}
    if setting.compiled:
        for subject in subjects:
            subject.block.compile()
    timings = take_turns({**work, **_machine_peak(setting)}, seconds=setting.seconds)
    peak_flops = 2 * _MATMUL_SIDE**3 / timings[_PEAK_MATMUL].median
    baseline = timings[BASELINE].median
    rows = []
    for subject in subjects:
        timing = timings[subject.name]
        rows.append(
            Row(
                subject=subject.name,
                tokens=count,
                pass_=pass_,
                median_seconds=timing.median,
                lower_quartile_seconds=timing.quartiles[0],
                upper_quartile_seconds=timing.quartiles[1],
                rounds=len(timing.seconds),
                ratio_to_sana=timing.median / baseline,
                tokens_per_second=setting.batch * count / timing.median,
                peak_tensor_bytes=memory[subject.name],
                macs=flops[subject.name] // 2,
                flops=flops[subject.name],
                share_of_peak=flops[subject.name] / timing.median / peak_flops,
            )
        )
    return rows


def _work(block: nn.Module, tokens: Tensor, kind: Pass, setting: Setting) -> Callable[[], object]:
    half = setting.precision == "bf16"

    def forward() -> Tensor:
        with torch.no_grad(), torch.autocast(setting.device.type, torch.bfloat16, enabled=half):
            out: Tensor = block(tokens)
            return out

    def forward_backward() -> None:
        inputs = tokens.detach().requires_grad_()
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=half):
            out = block(inputs)
        # The gradient that a layer above would hand down; its values do not matter to the time.
        out.backward(out.detach())
        block.zero_grad(set_to_none=True)

    return forward if kind == "forward" else forward_backward


def _machine_peak(setting: Setting) -> dict[str, Callable[[], object]]:
    """A square matrix product, whose FLOPs a second are what `share_of_peak` is a share of."""
    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    side = torch.randn(_MATMUL_SIDE, _MATMUL_SIDE, device=setting.device, dtype=dtype)
    return {_PEAK_MATMUL: lambda: side @ side}


def _flops(work: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    # The fused kernels of attention are counted as the two products that they are.
    with sdpa_kernel(SDPBackend.MATH), counter:
        work()
    return int(counter.get_total_flops())


def _shape(count: int, setting: Setting) -> AttentionShape:
    rows = next(r for r in range(math.isqrt(count), 0, -1) if count % r == 0)
    convolution = ValueConvolutionConfig(size=setting.convolution, initialization="identity")
    return AttentionShape(
        width=setting.width,
        heads=setting.heads,
        grid=(rows, count // rows),
        value_convolution=convolution,
        qk_norm=False,
    )


def run(options: argparse.Namespace) -> int:
    """`python -m benchmarks attention`.

    Raises:
        UserError: a subject that cannot be built, or no GPU where one is asked for.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no GPU here; leave it out")
    torch.set_num_threads(options.threads)
    setting = Setting(
        width=options.width,
        heads=options.heads,
        batch=options.batch,
        convolution=options.convolution,
        precision=options.precision,
        compiled=options.compile,
        device=torch.device(options.device),
        seconds=options.seconds,
    )
    rows = measure_attention(options.subjects, options.tokens, setting, lambda text: print(text))
    frame = table(rows)
    grown = growth(frame)
    backends = sdpa_backends(options.width, options.heads, max(options.tokens), setting.device)
    print(f"\nscaled_dot_product_attention can use here: {', '.join(backends)}")
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
        draw(frame, options.output / "attention")
        print(f"\n{options.output}")
    return 0
