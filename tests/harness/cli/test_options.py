"""Options become requests of the declared types, and mistakes in them are one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import pytest
from pydantic import TypeAdapter

from harness.cli import data, evaluate
from harness.cli.main import main
from harness.cli.options import Parser, spec_of
from harness.data.latents.encode import EncodeSpec
from harness.evaluation.standalone.spec import BuildSpec, EvaluateSpec
from harness.vocabulary.metrics import Measurement

ENCODE = ["data", "encode", "images", "out", "--autoencoder", "a", "--manifest", "m.json"]


def parsed(words: list[str]) -> Any:
    parser = Parser(prog="harness")
    commands = parser.add_subparsers(required=True)
    data.add(commands)
    evaluate.add(commands)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (EvaluateSpec, ["evaluate", "--samples", "a", "--reference", "b"]),
        (
            EvaluateSpec,
            [
                *("evaluate", "--samples", "a", "--reference", "b", "--extractor", "inception"),
                *("--extractor-weights", "w", "--per-class", "--per-class-csv", "c.csv"),
                *("--export", "adm=x.npz", "--json", "j.json", "--metrics", "fid", "pr"),
            ],
        ),
        (BuildSpec, [evaluate.BUILD_REFERENCE, "images", "o.npz"]),
        (
            BuildSpec,
            [
                *(evaluate.BUILD_REFERENCE, "images", "o.npz", "data.path=x", "--layout", "adm"),
                *("--manifest", "m.json", "--resolution", "8", "--single-images", "9"),
            ],
        ),
        (EncodeSpec, [*ENCODE, "--resolution", "8"]),
    ],
)
def test_options_have_the_types_that_the_request_declares(spec: type, words: list[str]) -> None:
    made = spec_of(spec, parsed(words))
    for name, declared in get_type_hints(spec).items():
        TypeAdapter(declared).validate_python(getattr(made, name), strict=True)


@pytest.mark.parametrize(
    ("name", "measured"),
    [
        ("fid", Measurement.FRECHET),
        ("sfid", Measurement.SPATIAL),
        ("kid", Measurement.KERNEL),
        ("fd", Measurement.FRECHET),
        ("coverage", Measurement.NEIGHBOURS),
    ],
)
def test_metrics_go_by_the_fields_names_as_well(name: str, measured: Measurement) -> None:
    options = parsed(["evaluate", "a", "b", "--metrics", name])
    assert options.measurements == [measured]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["evaluate", "a", "b", "--splits", "0"], "--splits is 0, but must be a whole number"),
        (["evaluate", "a", "b", "--batch-size", "x"], "--batch-size is x, but must be a whole"),
        (["evaluate", "a", "b", "--resamples", "-1"], "--resamples is -1, but must be a whole"),
        (["evaluate", "a", "b", "--metrics", "fic"], "--metrics is fic, but expected some of fd"),
        (["evaluate", "a", "b", "--export", "x.npz"], "--export is x.npz, but expected adm=OUT"),
        (["evaluate", "a"], "needs SAMPLES and REFERENCE"),
        (["evaluate", "a", "b", "c"], "needs SAMPLES and REFERENCE"),
        (["evaluate", "a", "b", "--samples", "c"], "needs SAMPLES and REFERENCE"),
        (["evaluate", "build-reference", "a", "b.npz", "--resolution", "-3"], "--resolution is -3"),
        (["evaluate", "build-reference", "a"], "required: OUT"),
        (["evaluate", "a", "b", "--bogus"], "unrecognized arguments: --bogus"),
        (["ablatoin"], "invalid choice: 'ablatoin' (choose from 'ablation'"),
        (["search", "x", "--trials"], "--trials: expected one argument"),
        ([*ENCODE, "--resolution", "0"], "--resolution is 0"),
        ([], "required: COMMAND"),
    ],
)
def test_a_mistake_in_the_options_is_one_line_and_exit_code_2(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""


def test_two_words_are_samples_and_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tmp_path / "a"), str(tmp_path / "b"), "--device", "cpu"]) == 2
    assert f"--samples {tmp_path / 'a'} is no folder of images" in capsys.readouterr().err


PLACES = ("ablation", "report", "status", "cancel", "retry", "probe", "evaluate")


@pytest.mark.parametrize("command", PLACES)
@pytest.mark.parametrize("below", ["", "below/it"])
def test_a_runs_dir_that_is_a_file_is_refused_by_every_command(
    command: str, below: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main([command, "no_differential", "--runs-dir", str(file / below)]) == 2
    refused = f"--runs-dir is {file / below}, but {file} is a file: name a folder"
    assert refused in one_line(capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["ablation", "no_differential", "--scale", "smoke"],
        ["retry", "no_differential", "--scale", "smoke"],
        ["report", "no_differential", "--scale", "smoke"],
        ["search", "dydila_factors", "--trials", "1"],
    ],
)
def test_a_runs_dir_that_cannot_be_written_is_told_before_any_work(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody, not even root, can make a file in /proc."""
    assert main([*words, "--runs-dir", "/proc/runs"]) == 2
    assert "--runs-dir is /proc/runs, where nothing can be written" in one_line(capsys)


LONG = "a" * 300


@pytest.mark.parametrize(
    "words",
    [
        ["report", LONG],
        ["probe", LONG],
        ["export", LONG, "out"],
        ["convert", LONG, "out"],
        ["evaluate", LONG, "b"],
        ["data", "make-manifest", ".", LONG],
        ["data", "verify", LONG, "b"],
        [*ENCODE, "--resolution", "8", "--manifest", LONG],
        ["ablation", LONG],
        ["list", "--experiments-dir", LONG],
        ["status", "no_differential", "--runs-dir", LONG],
    ],
)
def test_a_name_of_300_characters_is_one_line(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert main(words) == 2
    told = one_line(capsys)
    # A message may cut a name that is that long.
    assert LONG[:40] in told


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was told, which is a single line."""
    told = capsys.readouterr().err.strip()
    assert len(told.splitlines()) == 1, told
    return told
