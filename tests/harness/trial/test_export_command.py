"""`python -m harness export` on a trial that was trained for a moment, and `convert`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from safetensors.torch import load_file, save_model

from harness.cli.main import main
from harness.config.schema import TrialConfig
from harness.config.serialisation import to_yaml
from harness.data.datasets import load_data_set
from harness.machine.files import write_text
from harness.processes.progress import ignore_progress
from harness.training.build import build_backbone
from harness.training.export import load_exported
from harness.training.train import Training, TrainingSummary, load_trained
from harness.training.validation import ValidationFigures
from models.backbone import Backbone

TRIAL = "smoke/sana/seed0-0123456789ab"


@pytest.fixture(scope="module")
def config(trial_config: Callable[..., TrialConfig]) -> TrialConfig:
    """A network whose size is not the one its `mlp_ratio` says, and which DiT's layout can hold."""
    return trial_config(
        "softmax",
        "train.steps=2",
        "train.batch_size=8",
        "model.match_parameters_of=dydila",
        "model.value_convolution.size=0",
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, config: TrialConfig) -> Path:
    """A folder of runs that holds one trained trial."""
    runs = tmp_path_factory.mktemp("runs")
    folder = runs / TRIAL
    data = load_data_set(config.data)
    write_text(folder / "config.yaml", to_yaml(config))
    Training(
        config, data, folder, torch.device("cpu"), "32-true", DummyLogger(), ignore_progress
    ).run()
    return runs


def test_a_network_of_latents_is_exported_for_latents(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    """Untrained: which network is rebuilt does not depend on its weights."""
    of_latents = trial_config(
        "sana",
        "data.name=images",
        "data.manifest=images.json",
        "data.latents=latents",
        "data.resolution=64",
        "data.downsampling=8",
    )
    folder, out = tmp_path / TRIAL, tmp_path / "out"
    write_text(folder / "config.yaml", to_yaml(of_latents))
    network = build_backbone(of_latents, (4, 8, 8), 10)
    save_model(network, str(folder / "ema.safetensors"))
    summary = TrainingSummary(1, 1.0, None, "32-true", None)
    write_text(folder / "trained.json", json.dumps(asdict(summary)))
    assert main(["export", str(folder), str(out), "--runs-dir", str(tmp_path)]) == 0
    loaded = load_exported(out)
    latents, times, labels = torch.randn(2, 4, 8, 8), torch.tensor([0.0, 9.0]), torch.tensor([0, 1])
    assert torch.equal(loaded(latents, times, labels), network.eval()(latents, times, labels))


def test_an_exported_trial_predicts_what_the_trained_one_does(
    runs: Path, config: TrialConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", TRIAL, str(out), "--runs-dir", str(runs)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    trained, loaded = load_trained(runs / TRIAL, config), load_exported(out)
    assert loaded.config == trained.config
    assert loaded.config.mlp_ratio > config.model.mlp_ratio
    images = torch.randn(3, 1, 8, 8)
    times, labels = torch.tensor([0.0, 500.0, 999.0]), torch.tensor([0, 9, 10])
    assert torch.equal(loaded(images, times, labels), trained(images, times, labels))
    described = json.loads((out / "model.json").read_text())
    assert TrialConfig.model_validate(described["trial"]) == config


def test_the_best_weights_are_exported_where_they_are_asked_for(
    trial_config: Callable[..., TrialConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = trial_config(
        "sana",
        "train.steps=4",
        "train.batch_size=8",
        "train.validation_samples=10",
        "train.validation_samples_every=2",
        "train.best_by=fd",
        "model.depth=1",
    )
    folder, data = tmp_path / "runs" / TRIAL, load_data_set(config.data)
    write_text(folder / "config.yaml", to_yaml(config))

    def rising(network: Backbone, step: int) -> ValidationFigures:
        return ValidationFigures({}, {"fd": float(step)})

    cpu = torch.device("cpu")
    Training(config, data, folder, cpu, "32-true", DummyLogger(), ignore_progress, rising).run()
    exported = {}
    for weights, options in [("last", []), ("best", ["--weights", "best"])]:
        out = tmp_path / weights
        command = ["export", TRIAL, str(out), "--runs-dir", str(tmp_path / "runs"), *options]
        assert main(command) == 0
        assert json.loads((out / "model.json").read_text())["weights"] == weights
        exported[weights] = load_exported(out).state_dict()
    for weights, file in [("last", "ema.safetensors"), ("best", "best.safetensors")]:
        kept = load_file(folder / file)
        assert all(torch.equal(exported[weights][name], kept[name]) for name in kept)
    last, best = (exported[weights]["final_layer.linear.bias"] for weights in ("last", "best"))
    assert not torch.equal(last, best)
    (folder / "best.safetensors").unlink()
    capsys.readouterr()
    command = ["export", TRIAL, str(tmp_path / "none"), "--runs-dir", str(tmp_path / "runs")]
    assert main([*command, "--weights", "best"]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert str(folder / "best.safetensors") in told
    assert "trained.json" in told


def test_an_exported_trial_converts_to_dits_layout_and_back(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, published, again = tmp_path / "ours", tmp_path / "dit.safetensors", tmp_path / "again"
    assert main(["export", str(runs / TRIAL), str(ours)]) == 0
    assert main(["convert", str(ours), str(published)]) == 0
    assert main(["convert", str(published), str(again)]) == 0
    before, after = load_exported(ours).state_dict(), load_exported(again).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_cannot_be_exported_is_told_in_one_line(
    runs: Path, config: TrialConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    untrained, other = runs / "untrained", runs / "other"
    write_text(untrained / "config.yaml", to_yaml(config))
    for file in (runs / TRIAL).iterdir():
        if file.is_file():
            (other / file.name).parent.mkdir(exist_ok=True)
            (other / file.name).write_bytes(file.read_bytes())
    plain = config.model_copy(
        update={"model": config.model.model_copy(update={"match_parameters_of": None})}
    )
    write_text(other / "config.yaml", to_yaml(plain))
    for run, message in [
        (untrained, "training has not finished"),
        (other, "its weights do not fit its config.yaml"),
        (tmp_path / "gone", "neither a trial's folder"),
        (tmp_path, "is not the folder of a trial"),
    ]:
        code = main(["export", str(run), str(tmp_path / "out"), "--runs-dir", str(runs)])
        error = capsys.readouterr().err.strip()
        assert code == 2
        assert message in error
        assert "\n" not in error
    assert not (tmp_path / "out").exists()


def test_heads_that_do_not_fit_are_told_in_one_line(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(runs / TRIAL), str(tmp_path / "ours")]) == 0
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "dit.pt")]) == 0
    capsys.readouterr()
    out = tmp_path / "again"
    assert main(["convert", str(tmp_path / "dit.pt"), str(out), "--heads", "3"]) == 2
    assert "3 heads do not divide the width 64" in capsys.readouterr().err
    assert not out.exists()
