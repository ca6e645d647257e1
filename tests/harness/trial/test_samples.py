"""Samples drawn and measured while training, with the real extractor on digits.

Two processes that train together measure validation samples as one does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.loggers.logger import DummyLogger
from safetensors.torch import load_file

from harness.config.schema import TrialConfig
from harness.config.serialisation import chosen_by, to_yaml
from harness.data.datasets import load_data_set
from harness.data.images import DataSet
from harness.evaluation.extractors import load_extractor
from harness.evaluation.features import Extraction
from harness.evaluation.quality import evaluate_samples
from harness.evaluation.reference import PictureRows, RealImages, Reference, load_reference
from harness.processes.progress import Progress, ignore_progress
from harness.processes.ranks import run_local_ranks
from harness.sampling.sample import SampleSpec, draw_samples
from harness.tracking.journal import Journal
from harness.tracking.lightning_logger import JournalLogger
from harness.training.build import build_backbone
from harness.training.train import Training, load_trained
from harness.training.validation import ValidationFigures, read_best
from harness.trial.samples import NOISE_SEED, ValidationSamples
from harness.vocabulary.names import on_validation_samples, validation_metric_of
from models.backbone import Backbone
from models.errors import UserError

CPU = torch.device("cpu")


COUNT = 12


SETTINGS = (
    "train.steps=4",
    "train.batch_size=8",
    "train.checkpoint_every=4",
    f"train.validation_samples={COUNT}",
    "train.validation_samples_every=2",
    "train.best_by=kd",
    "model.depth=1",
    "sample.steps=3",
    "sample.weights=best",
    "evaluate.inception_splits=2",
)


@pytest.fixture(scope="module")
def config(trial_config: Callable[..., TrialConfig]) -> TrialConfig:
    return trial_config("sana", *SETTINGS)


@pytest.fixture(scope="module")
def data(config: TrialConfig) -> DataSet:
    return load_data_set(config.data)


@pytest.fixture(scope="module")
def measuring(
    data: DataSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Extraction, Reference]:
    extractor = load_extractor("efficientnet_lite0")
    pictures = data.train.pictures.subset(torch.arange(30))
    cache = tmp_path_factory.mktemp("references")
    real = RealImages(PictureRows(pictures), "thirty digits")
    extraction = Extraction(extractor, 30, CPU)
    return extraction, load_reference(real, extraction, cache)


@pytest.fixture
def samples_of(measuring: tuple[Extraction, Reference]) -> Callable[..., ValidationSamples]:
    def build(
        config: TrialConfig, folder: Path, told: Callable[[Progress], None] = ignore_progress
    ) -> ValidationSamples:
        return ValidationSamples(config, folder, CPU, lambda: measuring, lambda *_: None, told)

    return build


def scrambled(config: TrialConfig) -> Backbone:
    """The network starts as one that predicts zero."""
    network = build_backbone(config, (1, 8, 8), 10).eval()
    torch.nn.init.normal_(
        network.final_layer.linear.weight, std=0.1, generator=torch.Generator().manual_seed(1)
    )
    return network


def test_figures_are_those_of_the_same_images_measured_at_the_end(
    config: TrialConfig,
    data: DataSet,
    measuring: tuple[Extraction, Reference],
    samples_of: Callable[..., ValidationSamples],
    tmp_path: Path,
) -> None:
    network, told = scrambled(config), list[Progress]()
    found = samples_of(config, tmp_path, told.append)(network, 50)
    extraction, reference = measuring
    drawn = draw_samples(
        network,
        SampleSpec(
            config.sample,
            config.objective,
            shape=(1, 8, 8),
            num_classes=10,
            count=COUNT,
            seed=NOISE_SEED,
        ),
        CPU,
    )
    quality = evaluate_samples(
        drawn.images, reference, replace(extraction, batch_size=5), inception_splits=2
    )
    expected = {key: v for key, v in quality.recorded().items() if not key.endswith("/std")}
    assert {"fd_efficientnet_lite0", "precision_efficientnet_lite0"} <= expected.keys()
    logged = {validation_metric_of(key): value for key, value in found.logged.items()}
    assert logged.keys() == {(key, COUNT) for key in expected}
    for key, value in expected.items():
        assert logged[key, COUNT] == pytest.approx(value, rel=1e-4, abs=1e-6)
    assert found.by_metric["fd"] == found.logged["validation/fd_efficientnet_lite0/12_samples"]
    assert {(one.stage, one.done, one.total) for one in told} == {("train", 50, 4)}
    assert told[-1].note == "validation: features 12 of 12"
    with Image.open(tmp_path / "validation_samples" / "step-00000050.png") as picture:
        pixels = np.asarray(picture)
    # The first sample is of class 0, so it stands in the corner, enlarged six times.
    assert np.array_equal(pixels[2:50:6, 2:50:6], drawn.images[0, ..., 0])


def test_noise_and_labels_are_those_of_every_seed_and_step(
    config: TrialConfig, samples_of: Callable[..., ValidationSamples], tmp_path: Path
) -> None:
    network = scrambled(config)
    other = config.model_copy(
        update={"seed": 7, "sample": config.sample.model_copy(update={"labels": "uniform"})}
    )
    pictures = []
    for name, trial, step in [("a", other, 2), ("b", other, 4), ("c", config, 2)]:
        changed = trial.model_copy(update={"sample": other.sample})
        samples_of(changed, tmp_path / name)(network, step)
        path = tmp_path / name / "validation_samples" / f"step-{step:08d}.png"
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1] == pictures[2]
    assert NOISE_SEED >= 2**31, "no trial may have this seed"


def test_training_is_bitwise_the_same_with_and_without(
    config: TrialConfig,
    data: DataSet,
    samples_of: Callable[..., ValidationSamples],
    tmp_path: Path,
) -> None:
    with_samples, without = tmp_path / "with", tmp_path / "without"
    for folder, measure in [(with_samples, samples_of(config, with_samples)), (without, None)]:
        # What the global stream gives must not matter either.
        torch.manual_seed(len(folder.name))
        logger = DummyLogger()
        Training(config, data, folder, CPU, "32-true", logger, ignore_progress, measure).run()
    weights = (with_samples / "ema.safetensors").read_bytes()
    assert weights == (without / "ema.safetensors").read_bytes()
    states = [
        torch.load(folder / "checkpoints" / "step-00000004.ckpt", weights_only=True)
        for folder in (with_samples, without)
    ]
    for moments in zip(
        *(state["optimizer_states"][0]["state"].values() for state in states), strict=True
    ):
        assert torch.equal(moments[0]["exp_avg"], moments[1]["exp_avg"])
    grids = sorted(path.name for path in (with_samples / "validation_samples").iterdir())
    assert grids == ["step-00000002.png", "step-00000004.png"]
    assert read_best(with_samples) is not None
    assert read_best(without) is None


def test_samples_that_are_not_finite_are_never_the_best_and_do_not_stop_training(
    config: TrialConfig,
    data: DataSet,
    samples_of: Callable[..., ValidationSamples],
    tmp_path: Path,
) -> None:
    real = samples_of(config, tmp_path)

    def broken(network: Backbone, step: int) -> ValidationFigures:
        diverged = scrambled(config)
        with torch.no_grad():
            diverged.final_layer.linear.bias.fill_(math.nan)
        return real(diverged, step)

    journal = Journal(tmp_path)
    journal.start(experiment="smoke", run_name="sana/seed0", tags={}, params={})
    logger = JournalLogger(journal)
    Training(config, data, tmp_path, CPU, "32-true", logger, ignore_progress, broken).run()
    journal.close()
    events = [json.loads(line) for line in (tmp_path / "tracking.jsonl").read_text().splitlines()]
    tags = {key: value for event in events for key, value in event.get("tags", {}).items()}
    noted = "harness.non_finite." + on_validation_samples("fd_efficientnet_lite0", COUNT)
    assert tags[noted].startswith("nan at step 2")
    with pytest.raises(UserError, match="no validation gave a finite value"):
        load_trained(tmp_path, config, "best")


def test_a_metric_that_the_reference_cannot_give_is_told(
    config: TrialConfig,
    measuring: tuple[Extraction, Reference],
    tmp_path: Path,
) -> None:
    extraction, reference = measuring
    name = extraction.extractor.name
    few = Reference(reference.features.subset(np.arange(4)), "four digits", name, "the same")
    by_recall = config.model_copy(
        update={"train": config.train.model_copy(update={"best_by": "recall"})}
    )
    samples = ValidationSamples(
        by_recall, tmp_path, CPU, lambda: (extraction, few), print, ignore_progress
    )
    with pytest.raises(UserError, match=r"train\.best_by=recall cannot be measured: 4 images"):
        samples(scrambled(config), 2)


def test_what_chose_the_best_weights_is_said_in_full(config: TrialConfig) -> None:
    assert chosen_by(config) == "best by kd of 12 samples, every 2 steps"
    settings = {"best_by": "validation_loss", "validate_every": 50}
    by_loss = config.model_copy(update={"train": config.train.model_copy(update=settings)})
    assert chosen_by(by_loss) == "best by validation_loss, every 50 steps"


TARGET = "tests.support.ranks.validations:train_and_validate"


def curves(folder: Path) -> dict[tuple[str, int], float]:
    """The figures of validation samples in a journal, by name and step."""
    events = [json.loads(line) for line in (folder / "tracking.jsonl").read_text().splitlines()]
    return {
        (key, event["step"]): value
        for event in events
        if event["event"] == "metrics"
        for key, value in event["values"].items()
        if key.startswith("validation/")
    }


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_give_the_curves_and_the_best_of_one(
    strategy: str,
    trial_config: Callable[..., TrialConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = trial_config(
        "sana",
        "train.steps=4",
        "train.batch_size=8",
        "train.checkpoint_every=4",
        "train.validation_samples=12",
        "train.validation_samples_every=2",
        "train.best_by=fd",
        "train.learning_rate=0.01",
        "train.warmup_steps=0",
        f"train.strategy={strategy}",
        "model.depth=1",
        "sample.steps=3",
        "evaluate.inception_splits=2",
    )
    found = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        (folder / "config.yaml").write_text(to_yaml(config))
        payload = {"config": str(folder / "config.yaml"), "folder": str(folder)}
        told = run_local_ranks(TARGET, payload, processes, ignore_progress)
        assert told == {"processes": processes}
        found[processes] = curves(folder)
        assert len(list((folder / "validation_samples").iterdir())) == 2
    assert found[2].keys() == found[1].keys()
    assert {step for _, step in found[1]} == {2, 4}
    for (key, step), value in found[1].items():
        if key.startswith("validation/fd"):
            assert found[2][key, step] == pytest.approx(value, rel=1e-3)
    alone, together = (read_best(tmp_path / name) for name in "12")
    assert alone is not None
    assert together is not None
    assert alone.step == together.step
    weights = [load_file(tmp_path / name / "best.safetensors") for name in "12"]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        assert (weight - weights[1][name]).abs().max() < 1e-4, name
