from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.vocabulary import names
from harness.vocabulary.metrics import BY_KEY
from reports.comparison import compare
from reports.load import Floor, MissingTrial
from reports.tables.latex import latex_table

Build = Callable[..., Any]
FD = BY_KEY["fd"].recorded("efficientnet_lite0")
LOSS = names.VALIDATION_LOSS
HOSTILE = "_a_b%&#$x$ {\\input} ^~<>|\"'`"
FLOOR_IDENTITY = {
    "extractor": "efficientnet_lite0",
    "samples": 500,
    "reference": "digits-train-9f (1500 images)",
}


def example(build_runs: Build, *variants: str) -> Any:
    figures = {
        variant: {
            seed: {
                FD: 8.0 + 2 * index + seed,
                LOSS: 0.5 + 0.1 * index,
                names.FLOPS: 2e8,
                names.SAMPLING_IMAGES_PER_SECOND: 40.0 + index,
            }
            for seed in (0, 1)
        }
        for index, variant in enumerate(variants)
    }
    return build_runs(figures, floor=Floor({FD: 3.25}, FLOOR_IDENTITY))


def latex_of(runs: Any) -> str:
    return latex_table(runs, compare(runs))


def rows_of(latex: str) -> list[list[str]]:
    """The cells below the headings, with escapes undone; an own reader of the tabular."""
    body = latex.split(r"\midrule", 1)[1].split(r"\bottomrule")[0].replace(r"\midrule", "")
    rows = [line for line in re.split(r"\\\\\s*\n", body) if line.strip()]
    plain = {r"\_": "_", r"\%": "%", r"\&": "&", r"\#": "#", r"\$": "$"}
    return [
        [
            re.sub(r"\\[_%&#$]", lambda found: plain[found[0]], cell.strip())
            for cell in re.split(r"(?<!\\)&", row)
        ]
        for row in rows
    ]


def test_the_table_reads_back(build_runs: Build) -> None:
    assert rows_of(latex_of(example(build_runs, "no_a", "b%&#$", "c"))) == [
        ["no_a", r"\textbf{8.50 $\pm$ 0.71}", r"\textbf{0.5000 $\pm$ 0.0000}", "200.0",
         r"40.0 $\pm$ 0.0"],
        ["b%&#$", r"\underline{10.50 $\pm$ 0.71}", r"\underline{0.6000 $\pm$ 0.0000}", "200.0",
         r"\underline{41.0 $\pm$ 0.0}"],
        ["c", r"12.50 $\pm$ 0.71", r"0.7000 $\pm$ 0.0000", "200.0", r"\textbf{42.0 $\pm$ 0.0}"],
        ["real against real", "3.25", "--", "--", "--"],
    ]  # fmt: skip


def test_headings_name_extractor_unit_and_direction(build_runs: Build) -> None:
    heading = latex_of(example(build_runs, "a", "b")).split(r"\toprule")[1].split(r"\midrule")[0]
    assert heading.count(r"$\downarrow$") == 2
    assert heading.count(r"$\uparrow$") == 1
    words = re.sub(r"\\\\|\\begin\{tabular\}\[b\]\{@\{\}r@\{\}\}|\\end\{tabular\}", " ", heading)
    assert "FD (EfficientNet- Lite0)~" in words
    assert "MFLOPs" in words


def test_the_caption_says_what_the_marks_and_figures_mean(build_runs: Build) -> None:
    runs = example(build_runs, "a", "b")
    runs = replace(runs, missing=(MissingTrial("b", 2, "failed: 50% of disk"),))
    caption = latex_of(runs).split(r"\caption{")[1].split(r"\label")[0]
    for part in (
        "Does it help?",
        r"\textbf{Bold}",
        r"\underline",
        r"Mean $\pm$ sample standard deviation over 2 seeds",
        "500 generated images",
        "EfficientNet-Lite0",
        r"sampler flow\_euler",
        "steps 50",
        "guidance scale 1.5",
        "device cpu, 2 cores",
        r"b seed 2 (failed: 50\% of disk)",
        "only comparable within this table",
    ):
        assert part in caption


def attention(heads: int, width: int, bias: int) -> dict[int, dict[str, float]]:
    found = {names.HEADS: heads, names.HEAD_WIDTH: width, names.QKV_BIAS: bias}
    return {seed: {LOSS: 0.5, **found} for seed in (0, 1)}


def test_the_caption_names_heads_width_and_bias_of_each_row(build_runs: Build) -> None:
    what = r"Heads $\times$ width of one, bias of the projections to queries, keys and values: "
    shapes = {"softmax": attention(6, 64, 1), "no_bias": attention(12, 32, 0)}
    latex = latex_of(build_runs({**shapes, "lit": attention(6, 64, 1)}))
    assert (
        what + r"6$\times$64 with bias (softmax, lit); 12$\times$32 without bias (no\_bias). "
        in latex
    )
    assert {len(row) for row in rows_of(latex)} == {2}, "and no column is added"
    alike = latex_of(build_runs({"a": attention(6, 64, 1), "b": attention(6, 64, 1)}))
    assert what + r"6$\times$64 with bias. " in alike
    some = latex_of(build_runs({"a": attention(6, 64, 1), "b": {0: {LOSS: 0.5}}}))
    assert r"6$\times$64 with bias (a). " in some
    assert "bias of the projections" not in latex_of(example(build_runs, "a", "b"))


def test_a_table_without_floor_has_no_second_rule(build_runs: Build) -> None:
    runs = replace(example(build_runs, "a", "b"), floor=Floor({}, {}))
    assert latex_of(runs).count(r"\midrule") == 1


@pytest.mark.parametrize(
    "variants",
    [("a", "b"), (HOSTILE, "a name that is very long " * 5, "caf\u00e9 \u6f22"), ("alone",)],
)
def test_pdflatex_compiles_it(build_runs: Build, tmp_path: Path, variants: tuple[str, ...]) -> None:
    pdflatex = shutil.which("pdflatex")
    if pdflatex is None:
        pytest.skip("pdflatex is not installed, so whether the table compiles was not tried")
    runs = replace(
        example(build_runs, *variants),
        question=f"Is {HOSTILE} 50 % better?",
        ablation=HOSTILE,
        missing=(MissingTrial(HOSTILE, 3, HOSTILE),),
    )
    (tmp_path / "table.tex").write_text(latex_of(runs), encoding="utf-8")
    (tmp_path / "main.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\usepackage{graphicx}"
        r"\begin{document}\input{table.tex}\end{document}"
    )
    result = subprocess.run(
        [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "main.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-2000:]
    assert (tmp_path / "main.pdf").stat().st_size > 0
    assert "Overfull" not in result.stdout
