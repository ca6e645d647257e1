from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from markdown_it import MarkdownIt

from harness.vocabulary import names
from harness.vocabulary.metrics import BY_KEY
from reports.comparison import compare
from reports.load import Floor, MissingTrial
from reports.tables.markdown import markdown_table, markdown_text

Build = Callable[..., Any]
FD = BY_KEY["fd"].recorded("efficientnet_lite0")
FLOOR_IDENTITY = {
    "extractor": "efficientnet_lite0",
    "samples": 500,
    "reference": "digits-train-9f (1500 images)",
}
FIGURES = {
    "no_a": {0: {FD: 8.0}, 1: {FD: 9.0}},
    "b|c": {0: {FD: 10.0}, 1: {FD: 11.5}},
    "d": {0: {FD: 12.0}, 1: {FD: 13.0}},
}


def markdown_of(runs: Any) -> str:
    return markdown_table(runs, compare(runs), pictures={})


def test_the_table_marks_best_and_second(build_runs: Build) -> None:
    runs = build_runs(FIGURES, floor=Floor({FD: 3.0}, FLOOR_IDENTITY))
    lines = markdown_of(runs).splitlines()
    start = lines.index("| variant | FD (EfficientNet-Lite0) \u2193 |")
    assert lines[start + 1 : start + 6] == [
        "| --- | ---: |",
        "| no_a | **8.50 \u00b1 0.71** |",
        "| b\\|c | *10.75 \u00b1 1.06* |",
        "| d | 12.50 \u00b1 0.71 |",
        "| real against real | 3.00 |",
    ]


def test_a_markdown_parser_reads_hostile_names_back(build_runs: Build) -> None:
    hostile = ["a|b", "*a* _b_ __c__", "`x` <b>y</b>", "[l](u) ![i](u)", "~~s~~ # h", "50% $x$ \\_"]
    runs = build_runs({name: {0: {FD: 8.0 + index}} for index, name in enumerate(hostile)})
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown_of(runs))
    first_table = tokens[: next(i for i, token in enumerate(tokens) if token.type == "table_close")]
    cells = [token for token in first_table if token.type == "inline"]
    rows = cells[cells.index(next(c for c in cells if c.content == "variant")) :][2:]
    read = [[part for part in cell.children or [] if part.type != "text"] for cell in rows[::2]]
    assert read == [[] for _ in hostile], "no name turned into markup"
    assert ["".join(part.content for part in cell.children or []) for cell in rows[::2]] == hostile
    marks = [part.type for cell in rows[1::2] for part in cell.children or []]
    assert [mark for mark in marks if mark.endswith("_open")] == ["strong_open", "em_open"]


def test_differences_to_the_baseline_come_with_their_verdicts(build_runs: Build) -> None:
    text = markdown_of(build_runs(FIGURES))
    assert "## Differences to the baseline no_a" in text
    assert (
        "| FD (EfficientNet-Lite0) | b\\|c | +2.25 (standard error 0.25) | -0.93 to +5.43 | 0.070 "
        "| 0.070 | 2 | within seed noise |"
    ) in text
    assert (
        "| FD (EfficientNet-Lite0) | d | +4.00 (standard error 0.00) | +4.00 to +4.00 | < 0.001 "
        "| < 0.001 | 2 | larger than seed noise |"
    ) in text


def test_one_seed_cannot_tell(build_runs: Build) -> None:
    text = markdown_of(build_runs({"a": {0: {FD: 8.0}}, "b": {0: {FD: 10.0}}}))
    assert "| b | +2.00 | -- | -- | -- | 1 | one seed: cannot tell |" in text
    assert "One seed a variant, so no \u00b1." in text


def test_how_it_was_measured_stands_below(build_runs: Build) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    tags = {
        names.TAG_GIT_COMMIT: commit,
        names.TAG_GIT_DIRTY: "true",
        names.TAG_PRECISION: "bf16-mixed",
        names.TAG_DATA: "sub-in-100/v1, 256x256",
        names.TAG_VERSIONS: '{"torch": "2.14.1"}',
        names.TAG_SIDE_BY_SIDE: "2",
    }
    trials = [(variant, seed) for variant in FIGURES for seed in (0, 1)]
    text = markdown_of(build_runs(FIGURES, tags=dict.fromkeys(trials, tags)))
    for line in (
        "- commit: 0123456789ab with uncommitted changes",
        "- device: cpu, 2 cores",
        "- precision: bf16-mixed",
        "- data: sub-in-100/v1, 256x256",
        "- versions: torch 2.14.1",
        "- extractor: EfficientNet-Lite0",
        "- generated images a trial: 500",
        "- train images/s: measured with 2 trials side by side",
        "- seeds: 0, 1",
        "- rebuild this table: make report EXP=question_one SCALE=small",
    ):
        assert line in text.splitlines()
    assert "500 generated images a trial; real images of sub-in-100/v1, 256x256; features" in text
    assert "extractor weights sha256 0a1b2c3d4e5f, resize bilinear to 224" in text
    assert "sampler flow_euler, steps 50, guidance scale 1.5, guidance channels all" in text
    few = "fewer than 10,000 samples (here 500) or reference images (here 1,500) are biased"
    assert few in text


def test_a_small_reference_is_warned_of_where_samples_are_enough(build_runs: Build) -> None:
    identity = {**FLOOR_IDENTITY, "samples": 50_000}
    text = markdown_of(build_runs(FIGURES, identity=identity))
    assert "from fewer than 10,000 reference images (here 1,500) are biased" in text


def test_with_enough_samples_there_is_no_warning(build_runs: Build) -> None:
    identity = {"extractor": "inception", "samples": 50_000, "reference": "9f (10000 images)"}
    runs = build_runs(FIGURES, identity=identity)
    assert "biased" not in markdown_of(runs)


def test_trouble_is_named(build_runs: Build) -> None:
    floor = Floor({FD: 3.0}, FLOOR_IDENTITY | {"samples": 100})
    tags = {
        ("no_a", 0): {names.TAG_DEVICE: "gpu", names.TAG_GIT_COMMIT: "a"},
        ("d", 0): {names.TAG_GIT_COMMIT: "b"},
    }
    runs = build_runs(FIGURES, floor=floor, baseline="gone", tags=tags)
    text = markdown_of(replace(runs, missing=(MissingTrial("d", 2, "failed: *nan*"),)))
    assert "- Missing trials: d seed 2 (failed: \\*nan\\*)." in text
    assert "- The baseline gone is not among the variants." in text
    assert "samples is 100 for real against real, but 500 for the trials" in text
    assert "- Trials ran on different devices (gpu; cpu, 2 cores): speeds and memory" in text
    assert "- The trials differ in commit." in text


def test_uneven_numbers_of_seeds_are_told(build_runs: Build) -> None:
    figures = {"a": {0: {FD: 1.0}, 1: {FD: 2.0}}, "b": {0: {FD: 1.0}}}
    assert "(seeds: a 2, b 1); one seed prints no \u00b1." in markdown_of(build_runs(figures))


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("no_kernel", "no_kernel"),
        ("_a_ b", "\\_a\\_ b"),
        ("a|b*c`d<e>[f]#~\\", "a\\|b\\*c\\`d\\<e\\>\\[f\\]\\#\\~\\\\"),
        ("two\n\n# lines", "two \\# lines"),
    ],
)
def test_names_are_no_markup(text: str, escaped: str) -> None:
    assert markdown_text(text) == escaped
