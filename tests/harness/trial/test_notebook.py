"""What a notebook imports from `harness`, on a trial that was trained for a moment."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers.logger import DummyLogger

import harness
from harness.cli.main import main
from harness.config.schema import TrialConfig
from harness.config.serialisation import to_yaml
from harness.data.datasets import load_data_set
from harness.machine.environment import ROOT
from harness.machine.files import write_text
from harness.processes.progress import ignore_progress
from harness.training.export import export_model
from harness.training.train import Training
from models.errors import UserError


@pytest.fixture(scope="module")
def config(trial_config: Callable[..., TrialConfig]) -> TrialConfig:
    return trial_config("sana", "train.steps=2", "train.batch_size=8", "model.depth=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, config: TrialConfig) -> Path:
    """The folder of a trained trial."""
    folder = tmp_path_factory.mktemp("runs") / "smoke" / "sana" / "seed0-0123456789ab"
    data = load_data_set(config.data)
    write_text(folder / "config.yaml", to_yaml(config))
    Training(
        config, data, folder, torch.device("cpu"), "32-true", DummyLogger(), ignore_progress
    ).run()
    return folder


@pytest.mark.parametrize(
    "module", ["harness", "harness.cli.main", "harness.vocabulary.metrics", "harness.machine.files"]
)
def test_importing_what_is_light_imports_none_of_the_heavy_libraries(module: str) -> None:
    probe = (
        f"import sys, {module}\n"
        "heavy = {'torch', 'mlflow', 'pandas', 'pytorch_lightning', 'diffusers', 'scipy'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there_and_no_other() -> None:
    for name in harness.__all__:
        assert callable(getattr(harness, name))
        assert name in dir(harness)
    with pytest.raises(AttributeError, match="no attribute 'lod_trial'"):
        harness.lod_trial  # noqa: B018


def test_a_trial_and_its_export_draw_the_same_images(
    folder: Path, config: TrialConfig, tmp_path: Path
) -> None:
    assert main(["export", str(folder), str(tmp_path / "exported")]) == 0
    of_trial = harness.draw(harness.load_trial(folder), harness.read_config(folder), 3, seed=5)
    exported = harness.load_exported(str(tmp_path / "exported"))
    assert harness.read_config(tmp_path / "exported") == config
    of_export = harness.draw(exported, harness.read_config(tmp_path / "exported"), 3, seed=5)
    assert of_trial.images.shape == (3, 8, 8, 1)
    assert len(np.unique(of_trial.images)) > 10
    np.testing.assert_array_equal(of_trial.images, of_export.images)


def test_figures_are_those_of_the_command(tmp_path: Path) -> None:
    stream = np.random.default_rng(0)
    samples, real = stream.integers(0, 256, (2, 12, 8, 8, 3), dtype=np.uint8)
    for name, images in (("samples", samples), ("real", real)):
        np.save(tmp_path / f"{name}.npy", images)
    words = [str(tmp_path / "samples.npy"), str(tmp_path / "real.npy"), "--resamples", "0"]
    extractor = ["--extractor", "efficientnet_lite0"]
    assert main(["evaluate", *words, *extractor, "--json", str(tmp_path / "figures.json")]) == 0
    told = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert harness.measure(samples, tmp_path / "real.npy") == pytest.approx(told)
    assert "fd_efficientnet_lite0" in told


def test_a_folder_that_is_neither_trial_nor_export_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither config\.yaml.*nor model\.json"):
        harness.read_config(tmp_path)
    export_model(harness.load_trial(folder), tmp_path, trial=None)
    with pytest.raises(UserError, match="was not trained here"):
        harness.read_config(tmp_path)


@pytest.mark.parametrize("place", ["/proc/exported", "file/exported", "a" * 300])
def test_an_export_to_a_place_that_cannot_be_written_is_one_line(
    place: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["export", str(folder), place]) == 2
    told = capsys.readouterr().err.strip()
    assert place.partition("/")[0] in told
    assert len(told.splitlines()) == 1
