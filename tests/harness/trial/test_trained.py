"""`python -m harness probe` on a trial that was trained for a moment."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pytorch_lightning.loggers.logger import DummyLogger

from harness.cli.main import main
from harness.config.schema import TrialConfig
from harness.config.serialisation import to_yaml
from harness.data.datasets import load_data_set
from harness.machine.environment import ROOT
from harness.machine.files import write_text
from harness.processes.progress import ignore_progress
from harness.tracking.journal import Journal
from harness.tracking.publisher import publish_pending, run_id_of
from harness.tracking.store import open_store
from harness.training.train import Training

TRIAL = "smoke/dydila/seed0-0123456789ab"


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, trial_config: Callable[..., TrialConfig]
) -> Path:
    """A folder of runs that holds one trained trial, its journal, and an ablation's journal."""
    runs = tmp_path_factory.mktemp("runs")
    folder = runs / TRIAL
    config = trial_config("dydila", "train.steps=2", "train.batch_size=8", "model.depth=2")
    data = load_data_set(config.data)
    write_text(folder / "config.yaml", to_yaml(config))
    Training(
        config, data, folder, torch.device("cpu"), "32-true", DummyLogger(), ignore_progress
    ).run()
    for place in (folder, runs / "reports" / "smoke"):
        journal = Journal(place)
        journal.start(experiment="smoke", run_name="a run", tags={}, params={})
        journal.end("FINISHED")
        journal.close()
    return runs


@pytest.fixture(scope="module")
def store_uri(tmp_path_factory: pytest.TempPathFactory, new_store: Callable[[Path], str]) -> str:
    return new_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(autouse=True)
def store(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    monkeypatch.setenv("COLUMNS", "120")


def probe(runs: Path, *arguments: str) -> int:
    return main(["probe", *arguments, "--runs-dir", str(runs)])


def test_a_folder_gives_tables_a_csv_and_a_figure(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(runs, str(runs / TRIAL)) == 0
    printed = capsys.readouterr().out
    assert "16 tokens, 8 held-out images, timesteps 240, 421, 579, 760" in printed
    with (runs / TRIAL / "attention_probe.csv").open() as file:
        rows = list(csv.DictReader(file))
    values = [
        float(row["value"])
        for row in rows
        if (row["layer"], row["metric"]) == ("1", "attention_entropy")
    ]
    assert len(values) == 4 * 2
    (line,) = [line for line in printed.splitlines() if line.split()[:1] == ["1"]][:1]
    assert line.split()[1] == f"{sum(values) / len(values):.3f}"
    for router in ("query_kernel", "redundant_key.difference"):
        assert router in printed
    assert (runs / TRIAL / "attention_probe.png").read_bytes().startswith(b"\x89PNG")
    assert str(runs / TRIAL / "attention_probe.png") in printed


def test_the_same_command_gives_the_same_figures(runs: Path) -> None:
    table = runs / TRIAL / "attention_probe.csv"
    assert probe(runs, TRIAL) == 0
    first = table.read_bytes()
    assert probe(runs, TRIAL) == 0
    assert table.read_bytes() == first


def test_other_images_and_timesteps_leave_the_trials_own_files_alone(runs: Path) -> None:
    assert probe(runs, TRIAL) == 0
    own = (runs / TRIAL / "attention_probe.csv").read_bytes()
    assert probe(runs, TRIAL, "--images", "2", "--timesteps", "3") == 0
    assert (runs / TRIAL / "attention_probe.csv").read_bytes() == own
    with (runs / TRIAL / "attention_probe-2-images-3-timesteps.csv").open() as file:
        assert len({row["timestep"] for row in csv.DictReader(file)}) == 3


def test_other_weights_leave_the_trials_own_files_alone(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / TRIAL
    shutil.copytree(runs / TRIAL, folder, ignore=shutil.ignore_patterns("attention_probe*"))
    assert probe(tmp_path, TRIAL, "--weights", "best") == 2
    assert "holds no best weights" in capsys.readouterr().err
    shutil.copy(folder / "ema.safetensors", folder / "best.safetensors")
    assert probe(tmp_path, TRIAL, "--weights", "best") == 0
    assert "best weights" in capsys.readouterr().out
    probed = sorted(path.name for path in folder.glob("attention_probe*"))
    assert probed == ["attention_probe-best-weights.csv", "attention_probe-best-weights.png"]


def test_a_run_is_found_by_its_id_in_mlflow(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mlflow = open_store(ROOT)
    publish_pending(runs, mlflow, print)
    run_id = run_id_of(runs / TRIAL, mlflow)
    assert run_id
    assert probe(runs, run_id, "--images", "1", "--timesteps", "1") == 0
    assert TRIAL in capsys.readouterr().out
    parent = run_id_of(runs / "reports" / "smoke", mlflow)
    assert parent
    assert probe(runs, parent) == 2
    assert "not a trial's" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nothing"], "nothing is neither a trial's folder"),
        (["smoke"], "holds no config.yaml"),
        ([TRIAL, "--images", "0"], "--images is 0"),
        ([TRIAL, "--images", "41"], "--images is 41"),
        ([TRIAL, "--timesteps", "0"], "--timesteps is 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    runs: Path, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(runs, *arguments) == 2
    printed = capsys.readouterr()
    assert line in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""


def test_a_trial_without_its_weights_says_so(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / TRIAL, tmp_path / "trial")
    config = tmp_path / "trial" / "config.yaml"
    config.write_text(config.read_text().replace("depth: 2", "depth: 3"))
    assert probe(runs, str(tmp_path / "trial")) == 2
    assert "do not fit" in capsys.readouterr().err
    (tmp_path / "trial" / "trained.json").unlink()
    assert probe(runs, str(tmp_path / "trial")) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "training has not finished" in line
