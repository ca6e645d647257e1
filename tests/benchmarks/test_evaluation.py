from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import tools, turns
from benchmarks.__main__ import main
from benchmarks.evaluation import (
    link_images,
    measure_frechet,
    write_digits,
    write_random_inception,
)
from benchmarks.tools import OURS, Comparison, Tool, available_tools, measure_evaluation
from harness.evaluation.extractors import load_extractor
from harness.processes.progress import Progress
from models.errors import UserError


def comparison(tmp_path: Path, count: int = 4) -> Comparison:
    images, _ = write_digits(count, tmp_path)
    return Comparison(
        tmp_path, images, tmp_path / "random.pth", batch_size=4, threads=1, device="cpu"
    )


def python(name: str, program: str) -> Tool:
    """A real process, which prints the number of its threads as its figure."""
    return Tool(name, (sys.executable, "-c", program), {"GIVEN": "7"}, float)


PRINT_THREADS = "import os; print(os.environ['OMP_NUM_THREADS'] + os.environ['GIVEN'])"


def test_tools_take_turns_with_the_same_threads(tmp_path: Path) -> None:
    three = [python(name, PRINT_THREADS) for name in ("a", "b", "c")]
    reported: list[Progress] = []
    given = comparison(tmp_path)
    speeds = measure_evaluation(three, given, rounds=2, on_progress=reported.append)
    assert [p.stage for p in reported] == ["a", "b", "c", "b", "c", "a"]
    assert [p.done for p in reported] == [1, 2, 3, 4, 5, 6]
    assert [speed.name for speed in speeds] == ["a", "b", "c"]
    for speed in speeds:
        assert speed.figure == 17
        assert len(speed.seconds) == 2
        assert all(0 < busy < 60 for busy in speed.processor_seconds)
        assert speed.features_per_second == pytest.approx(8 / (sum(speed.seconds) / 2))
        assert speed.ratios == tuple(
            theirs / ours for theirs, ours in zip(speed.seconds, speeds[0].seconds, strict=True)
        )


def test_a_tool_that_fails_is_named_with_its_last_line(tmp_path: Path) -> None:
    two = [python("a", PRINT_THREADS), python("b", "import sys; sys.exit('no such thing')")]
    with pytest.raises(UserError, match="b ended with exit status 1: no such thing; the command"):
        measure_evaluation(two, comparison(tmp_path), rounds=1)


def test_tools_that_are_not_installed_are_skipped_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pytorch_fid", None)
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda _: None)
    found, skipped = available_tools(comparison(tmp_path))
    assert [tool.name for tool in found] == [OURS]
    assert [line.split(" ")[0] for line in skipped] == ["torch-fidelity", "pytorch-fid"]


def test_random_weights_are_in_the_layout_of_the_fields_file(tmp_path: Path) -> None:
    """As torch-fidelity's network reads it, which ours is."""
    write_random_inception(tmp_path / "random.pth")
    extractor = load_extractor("inception", tmp_path / "random.pth")
    assert extractor.display.startswith("Inception network with weights")


def test_folders_at_any_depth_become_flat_ones(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(3):
            path = tmp_path / name / f"class{number}" / "x.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
    assert link_images(tmp_path / "a", tmp_path / "b", 2, tmp_path / "scratch") == 4
    found = sorted((tmp_path / "scratch" / "samples").iterdir())
    assert [path.name for path in found] == ["000000.png", "000001.png"]
    assert [Image.open(path).getpixel((0, 0)) for path in found] == [(0, 0, 0), (1, 0, 0)]
    Image.new("RGB", (4, 4)).save(tmp_path / "a" / "a.webp")
    with pytest.raises(UserError, match=r"a\.webp is no file that all tools look for"):
        link_images(tmp_path / "a", tmp_path / "b", 9, tmp_path / "other")
    with pytest.raises(UserError, match="no folder of images"):
        link_images(tmp_path / "c", tmp_path / "b", 9, tmp_path / "third")


def test_no_more_digits_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="898 digits for each folder"):
        write_digits(899, tmp_path)


@pytest.mark.slow
def test_all_tools_find_the_same_distance(tmp_path: Path) -> None:
    given = comparison(tmp_path)
    write_random_inception(given.weights)
    all_of_them, skipped = available_tools(given)
    assert skipped == []
    ours, torch_fidelity, pytorch_fid = measure_evaluation(all_of_them, given, rounds=1)
    assert ours.figure == pytest.approx(torch_fidelity.figure, rel=1e-4)
    # It resizes with half-pixel centres, so it sees somewhat other pixels.
    assert ours.figure == pytest.approx(pytorch_fid.figure, rel=0.1)
    assert min(ours.figure, *ours.seconds) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--count", "1"), "--count is 1, but must be a whole number of at least 2"),
        (("--rounds", "0"), "--rounds is 0, but must be a whole number of at least 1"),
        (("--count", "900"), "--count is 900, but there are 898 digits"),
        (("--samples", "x"), "--samples and --reference belong together"),
        (("--samples", "x", "--reference", "y"), "x is no folder of images"),
        (("--json", "/dev/null/x.json"), "/dev/null/x.json cannot be written"),
        (("--weights", "nowhere.pth"), "no file of weights nowhere.pth"),
    ],
)
def test_mistakes_are_one_line_before_anything_runs(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluation", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_medians_and_ratios_are_of_interleaved_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that runs 1 and 4, 6 and 3, 2 and 10 seconds; the second round begins with theirs."""
    durations = (1, 4, 6, 3, 2, 10)
    ticks = itertools.accumulate(itertools.chain.from_iterable((100, one) for one in durations))
    monkeypatch.setattr(turns.time, "perf_counter", lambda: next(ticks))
    reported: list[Progress] = []
    speeds = measure_frechet(dimensions=8, rounds=3, on_progress=reported.append)
    assert (speeds.ours, speeds.square_root) == (2, 6)
    assert speeds.ratios == (4, 2, 5)
    assert speeds.dimensions == 8
    assert [p.done for p in reported] == [1, 2, 3, 4, 5, 6]


def test_both_ways_find_the_same_distance() -> None:
    speeds = measure_frechet(dimensions=48, rounds=1)
    assert speeds.relative_difference < 1e-8
    assert min(speeds.ours, speeds.square_root) > 0
