from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rich.console import Console

from harness.vocabulary import names
from harness.vocabulary.metrics import BY_KEY
from reports.comparison import compare
from reports.load import Floor, MissingTrial
from reports.tables.console import console_table

Build = Callable[..., Any]
FD = BY_KEY["fd"].recorded("efficientnet_lite0")
IS = BY_KEY["is"].recorded("efficientnet_lite0")
FLOOR_IDENTITY = {
    "extractor": "efficientnet_lite0",
    "samples": 500,
    "reference": "digits-train-9f (1500 images)",
}


def example(build_runs: Build, *variants: str) -> Any:
    metrics = {
        FD: 12.34, IS: 4.5, names.VALIDATION_LOSS: 0.5, names.PARAMETERS: 2e6, names.FLOPS: 2e8,
        names.MACS: 1e8, names.TRAIN_IMAGES_PER_SECOND: 512.0,
        names.SAMPLING_IMAGES_PER_SECOND: 43.8, names.TRAINING_MEMORY: 4.3e8,
    }  # fmt: skip
    figures = {
        variant: {
            seed: {key: value * (1 + 0.1 * index + 0.01 * seed) for key, value in metrics.items()}
            for seed in (0, 1)
        }
        for index, variant in enumerate(variants)
    }
    return build_runs(figures, floor=Floor({FD: 3.25, IS: 4.9}, FLOOR_IDENTITY))


def printed(runs: Any, width: int) -> str:
    console = Console(width=width, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(console_table(runs, compare(runs)))
    return capture.get()


def test_a_narrow_terminal_shows_every_heading_and_figure_whole(build_runs: Build) -> None:
    text = printed(example(build_runs, "no_differential", "a", "b"), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "\u2026" not in text, "nothing is cut off"
    words = text.split()
    for word in ("(EfficientNet-Lite0)", "validation", "MFLOPs", "MMACs", "sampling", "(MiB)"):
        assert word in words
    assert "12.40 \u00b1\u00a00.09" in text
    assert text.count("no_differential") == 2
    assert text.count("real against real") == 1


def test_a_wide_terminal_shows_one_table(build_runs: Build) -> None:
    text = printed(example(build_runs, "no_differential", "a"), 200)
    row = next(line for line in text.splitlines() if "no_differential" in line)
    assert "12.40" in row
    assert "412.1" in row


def test_names_are_no_markup_and_may_be_long(build_runs: Build) -> None:
    text = printed(example(build_runs, "[bold]x[/bold]", "[/red]", "long_" * 20), 80)
    assert "[bold]x[/bold]" in text
    assert "[/red]" in text
    assert max(map(len, text.splitlines())) <= 80


def test_verdicts_notes_and_missing_trials_are_told(build_runs: Build) -> None:
    runs = example(build_runs, "a", "b")
    runs = replace(runs, missing=(MissingTrial("b", 2, "stopped: Ctrl-C"),))
    text = printed(runs, 120)
    assert "Differences to a, paired by seed" in text
    assert "larger than seed noise" in text
    assert "! Missing trials: b seed 2 (stopped: Ctrl-C)." in text
    assert "biased and only comparable within this table" in " ".join(text.split())


def test_best_and_second_are_styled(build_runs: Build) -> None:
    runs = example(build_runs, "a", "b", "c")
    console = Console(width=200, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(console_table(runs, compare(runs)))
    lines = [line for line in capture.get().splitlines() if "12.40" in line or "13.64" in line]
    assert "\x1b[1;32m12.40" in lines[0]
    assert "\x1b[4m13.64" in lines[1]


def test_the_probe_has_a_table_of_its_own_where_width_is_scarce(build_runs: Build) -> None:
    probed = {
        names.ATTENTION_ENTROPY: 0.875,
        names.ATTENTION_EFFECTIVE_RANK: 4.25,
        names.TOKEN_SIMILARITY: 0.5,
        names.ROUTING_ENTROPY: 0.625,
    }
    cost = {FD: 12.34, IS: 4.5, names.VALIDATION_LOSS: 0.5, names.PARAMETERS: 2e6}
    speed = {names.TRAIN_IMAGES_PER_SECOND: 512.0, names.TRAINING_MEMORY: 4.3e8, names.FLOPS: 2e8}
    runs = build_runs({"a_variant": {0: {**cost, **speed, **probed}}})
    narrow = printed(runs, 80)
    (line,) = [line for line in narrow.splitlines() if "0.875" in line]
    assert line.split() == ["a_variant", "0.875", "4.25", "0.500", "0.625"]
    assert narrow.count("a_variant") == 3
    assert "1 is uniform" in narrow
    assert "1 is uniform" not in printed(build_runs({"a": {0: cost}}), 80)
    assert printed(runs, 250).count("a_variant") == 1
