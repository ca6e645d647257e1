"""The attention benchmark: its statistics against known laws, and a small run of the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.subjects import build_block
from benchmarks.turns import crossover, growth_exponent, median_interval, take_turns
from models.attention.base import AttentionShape, ValueConvolutionConfig
from models.errors import UserError

SHAPE = AttentionShape(
    width=64,
    heads=2,
    grid=(4, 8),
    value_convolution=ValueConvolutionConfig(size=0, initialization="zero"),
    qk_norm=False,
)


def test_exponents_of_power_laws_are_found() -> None:
    sizes = [64, 256, 1024]
    assert growth_exponent(sizes, [3e-9 * n**2 for n in sizes]) == pytest.approx(2)
    assert growth_exponent(sizes, [5e-7 * n for n in sizes]) == pytest.approx(1)
    assert math.isnan(growth_exponent([64], [1.0]))


def test_the_crossover_of_a_line_and_a_parabola_is_where_they_meet() -> None:
    sizes = [64, 256, 1024, 4096]
    linear, quadratic = [500.0 * n for n in sizes], [float(n**2) for n in sizes]
    assert crossover(sizes, linear, quadratic) == pytest.approx(500)
    assert math.isnan(crossover(sizes, quadratic, linear))
    assert crossover(sizes, [s / 2 for s in linear], linear) == 64


def test_the_interval_of_the_median_covers_it_as_often_as_it_says() -> None:
    drawn = np.random.default_rng(0).exponential(size=(2000, 25))
    held = 0
    for row in drawn:
        lower, upper = median_interval(row)
        held += lower <= math.log(2) <= upper
    assert 0.94 <= held / len(drawn) <= 0.99


def test_every_piece_is_run_equally_often_and_in_changing_order() -> None:
    calls: list[str] = []
    work = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    timings = take_turns(work, seconds=0.0)
    rounds = set(map(len, timings.values()))
    assert rounds == {5}
    assert sorted(calls) == sorted("abc" * (5 + 2))
    orders = {tuple(calls[i : i + 3]) for i in range(6, len(calls), 3)}
    assert len(orders) > 1


@pytest.mark.parametrize(
    ("peer", "ours"), [("diffusers_sana", "sana"), ("diffusers_dit", "softmax")]
)
def test_peers_compute_what_our_block_does(peer: str, ours: str) -> None:
    tokens = torch.randn(2, 32, 64, generator=torch.Generator().manual_seed(0))
    actual, expected = (build_block(word, SHAPE)(tokens) for word in (peer, ours))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_fields_of_a_subject_reach_its_configuration() -> None:
    block = build_block("dydila:differential=off,kernel=relu,n_projectors=2", SHAPE)
    assert block.config.differential == "off"
    assert block.config.kernel == "relu"


@pytest.mark.parametrize(
    ("word", "part"),
    [("dydla", "dydila"), ("dydila:kernel", "kernel"), ("dydila:kernel=cubic", "kernel")],
)
def test_a_subject_that_cannot_be_built_is_refused(word: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        build_block(word, SHAPE)


def test_the_command_writes_tables_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "attention"
    words = ["attention", "--subjects", "softmax", "dydila", "--tokens", "16", "64"]
    sizes = ["--width", "64", "--heads", "2", "--seconds", "1"]
    threads = torch.get_num_threads()
    assert main([*words, *sizes, "--output", str(folder)]) == 0
    torch.set_num_threads(threads)
    frame = pd.read_csv(folder / "attention.csv")
    assert set(frame["subject"]) == {"softmax", "dydila", "sana"}
    assert len(frame) == 3 * 2 * 2
    assert (frame["lower_quartile_seconds"] <= frame["upper_quartile_seconds"]).all()
    assert (frame.loc[frame["subject"] == "sana", "ratio_to_sana"] == 1).all()
    forward = frame[(frame["pass"] == "forward") & (frame["subject"] == "softmax")]
    flops = {row.tokens: row.flops for row in forward.itertuples()}
    assert flops == {n: 2 * (4 * n * 64**2 + 2 * n * n * 64) for n in (16, 64)}
    assert {path.name for path in folder.iterdir()} == {
        "attention.csv",
        "growth.csv",
        "attention.png",
        "attention.pdf",
    }
    assert "multiple of sana" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--tokens", "16", "0"), "--tokens: 0"), (("--output", "/dev/null/x"), "--output")],
)
def test_what_cannot_be_measured_or_written_is_one_line_at_once(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    assert main(["attention", *words]) == 2
    torch.set_num_threads(threads)
    output = capsys.readouterr()
    (told,) = output.err.splitlines()
    assert message in told
    assert not output.out


def test_a_profile_prints_the_dearest_operations_of_its_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "traces" / "sana.json"
    sizes = ["--tokens", "16", "--width", "64", "--heads", "2", "--rounds", "3"]
    threads = torch.get_num_threads()
    assert main(["profile", "sana", *sizes, "--output", str(path)]) == 0
    torch.set_num_threads(threads)
    head, titles, *lines, last = capsys.readouterr().out.splitlines()
    assert "sana, 16 tokens, forward and backward, 3 rounds" in head
    assert titles.split()[0] == "operation"
    assert last == str(path)
    rows = [line.rsplit(maxsplit=3) for line in lines]
    assert len(rows) == 10
    times = [float(milliseconds) for _, _, milliseconds, _ in rows]
    assert times == sorted(times, reverse=True)
    traced = [
        event["name"] for event in json.loads(path.read_text())["traceEvents"] if "dur" in event
    ]
    for name, calls, _, _ in rows:
        assert traced.count(name.strip()) == 3 * float(calls), "calls are of one pass"
    assert any("Backward" in name for name in traced)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sanna",), "did you mean sana?"),
        (("sana", "--tokens", "0"), "--tokens is 0"),
        (("sana", "--output", "/dev/null/x.json"), "/dev/null/x.json cannot be written"),
    ],
)
def test_a_profile_that_cannot_be_made_is_one_line(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    assert main(["profile", *words]) == 2
    torch.set_num_threads(threads)
    (told,) = capsys.readouterr().err.splitlines()
    assert message in told
