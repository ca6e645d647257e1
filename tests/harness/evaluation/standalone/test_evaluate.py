"""`harness evaluate` from the command line, on a small network with random weights."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from harness.cli.main import main
from harness.config.schema import TrialConfig
from harness.config.serialisation import sampling_facts, to_yaml
from harness.evaluation.extractors import load_extractor
from harness.evaluation.features import Extraction, extract_features
from harness.evaluation.metrics.kernel_distance import kernel_distance
from harness.evaluation.metrics.neighbours import neighbour_scores
from harness.evaluation.metrics.uncertainty import (
    FrechetExtrapolation,
    FrechetInterval,
    Uncertainty,
)
from harness.evaluation.quality import Figure, Quality
from harness.evaluation.standalone.table import figure_rows
from harness.sampling.files import save_samples
from tests.support.figures import frechet_distance_of_features
from tests.support.stand_ins.random_weights import smooth_images, write_random_vit

SAMPLES, REAL = 30, 40
IMAGES = smooth_images(SAMPLES + REAL, 16, seed=0).numpy()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_vit(tmp_path_factory.mktemp("weights") / "vit.pth")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """Samples, real images and their reference."""
    folder = tmp_path_factory.mktemp("images")
    np.savez(folder / "samples.npz", arr_0=IMAGES[:SAMPLES])
    np.savez(folder / "real.npz", arr_0=IMAGES[SAMPLES:])
    assert main(["evaluate", "build-reference", str(folder / "real.npz"),
                 str(folder / "reference.npz"), *vit(weights)]) == 0  # fmt: skip
    return folder


def vit(weights: Path) -> list[str]:
    return ["--extractor", "torch:test_vit", "--extractor-weights", str(weights)]


def evaluate(folder: Path, weights: Path, *more: str, **changed: str) -> dict[str, Any]:
    """What the command wrote as JSON."""
    given = {"samples": str(folder / "samples.npz"), "reference": str(folder / "reference.npz")}
    words = [word for key, value in {**given, **changed}.items() for word in (f"--{key}", value)]
    out = folder / "out.json"
    assert main(["evaluate", *words, "--extractor-weights", str(weights), "--json", str(out),
                 "--resamples", "2", *more]) == 0  # fmt: skip
    return json.loads(out.read_text())


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["evaluate", *words]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_figures_are_those_of_the_features(folder: Path, weights: Path) -> None:
    report = evaluate(folder, weights)
    extractor = load_extractor("torch:test_vit", weights)
    ours, real = (
        extract_features(part, Extraction(extractor, 99, "cpu")).features
        for part in (IMAGES[:SAMPLES], IMAGES[SAMPLES:])
    )
    figures = report["figures"]
    expected = frechet_distance_of_features(ours, real)
    assert figures["fd_torch:test_vit"] == pytest.approx(expected, rel=1e-5)
    kernel = kernel_distance(ours, real)
    assert figures["kd_torch:test_vit"] == pytest.approx(kernel.mean, rel=1e-3)
    scores = neighbour_scores(ours, real)
    assert figures["precision_torch:test_vit"] == scores.precision
    assert figures["recall_torch:test_vit"] == scores.recall
    assert figures["density_torch:test_vit"] == pytest.approx(scores.density)
    assert figures["coverage_torch:test_vit"] == scores.coverage
    assert "is_torch:test_vit" in figures


def test_everything_that_figures_depend_on_is_written(folder: Path, weights: Path) -> None:
    identity = evaluate(folder, weights)["identity"]
    assert identity["extractor"] == "torch:test_vit"
    assert len(identity["extractor_weights_sha256"]) == 64
    assert (identity["samples"], identity["resolution"]) == (SAMPLES, "16x16")
    assert identity["reference"]["images"] == identity["reference_images"] == REAL
    assert identity["reference"]["source"].endswith("real.npz")
    assert identity["neighbours"] == 3
    assert identity["kernel_subset_size"] == SAMPLES
    assert identity["inception_splits"] == 10


def test_images_anywhere_give_the_same_figures(folder: Path, weights: Path, tmp_path: Path) -> None:
    """Samples as a folder of PNGs, the reference as images."""
    for number, image in enumerate(IMAGES[:SAMPLES]):
        Image.fromarray(image).save(tmp_path / f"{number:03}.png")
    first = evaluate(folder, weights)
    again = evaluate(
        folder, weights, *vit(weights), samples=str(tmp_path), reference=str(folder / "real.npz")
    )
    assert again["identity"]["samples_sha256"] == first["identity"]["samples_sha256"]
    assert again["identity"]["reference_fingerprint"] == first["identity"]["reference_fingerprint"]
    for name, value in first["figures"].items():
        assert again["figures"][name] == pytest.approx(value, rel=1e-5), name


def test_the_export_holds_the_same_images(folder: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "adm.npz"
    evaluate(folder, weights, "--metrics", "fd", "--export", f"adm={out}")
    with np.load(out) as stored:
        assert stored.files == ["arr_0"]
        assert np.array_equal(stored["arr_0"], IMAGES[:SAMPLES])


def test_few_samples_are_warned_of_with_an_interval_and_a_limit(
    folder: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = evaluate(folder, weights, "--metrics", "fd")
    assert report["interval"]["low"] < report["interval"]["high"]
    # 30 and 40 images in 64 dimensions: the bias is no line there.
    assert "extrapolation" not in report
    shown = capsys.readouterr().out
    assert "30 samples are fewer than 10,000" in shown
    assert "40 reference images are fewer than 10,000" in shown
    assert "95% interval" in shown
    assert "unlimited" not in shown
    assert "FID" not in shown


def test_a_line_below_zero_is_said_to_mean_zero() -> None:
    interval = FrechetInterval(1.0, 0.5, 1.5, 0.0, 0.2, 0.95, 100)
    quality = Quality({"extractor": "inception"}, {"fd": Figure(1.0), "kd": Figure(-0.002)})
    for value, said in ((-3.17, True), (0.2, False)):
        line = FrechetExtrapolation(value, 0.5, (50, 100), (2.0, 1.0))
        rows = figure_rows(quality, Uncertainty(interval, line), "Inception")
        (row,) = (row for row in rows if "unlimited" in row[0])
        assert row[:2] == ("  FID of unlimited images", f"{value:.4f} \u00b1 0.5000")
        assert ("no distance can be told from zero" in row[2]) == said
        assert ("KID x 1000 \u2193", "-2.0000", "") in rows


def class_folders(root: Path, images: np.ndarray, classes: int) -> Path:
    for number, image in enumerate(images):
        folder = root / str(number % classes)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:03}.png")
    return root


def test_class_folders_keep_their_labels_and_other_numbers_of_classes_are_warned_of(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = class_folders(tmp_path / "s", IMAGES[:24], classes=12)
    real = class_folders(tmp_path / "r", IMAGES[24:54], classes=3)
    out = tmp_path / "adm.npz"
    report = evaluate(
        folder,
        weights,
        *("--metrics", "kid", "--resamples", "0", "--export", f"adm={out}"),
        "--extractor",
        "torch:test_vit",
        samples=str(samples),
        reference=str(real),
    )
    with np.load(out) as stored:
        labels = stored["arr_1"].tolist()
        assert sorted(labels) == [label for label in range(12) for _ in range(2)]
        expected = [label + 12 * (place % 2) for place, label in enumerate(labels)]
        assert np.array_equal(stored["arr_0"], IMAGES[expected])
    warning = "the samples are of 12 classes, but the reference of 3"
    assert any(said.startswith(warning) for said in report["warnings"])
    assert warning in capsys.readouterr().out


def test_one_subset_of_everything_has_no_deviation(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "a.npy", IMAGES[:20])
    np.save(tmp_path / "b.npy", IMAGES[20:40])
    report = evaluate(
        folder,
        weights,
        *("--metrics", "kd", "--resamples", "0"),
        "--extractor",
        "torch:test_vit",
        samples=str(tmp_path / "a.npy"),
        reference=str(tmp_path / "b.npy"),
    )
    assert list(report["figures"]) == ["kd_torch:test_vit"]
    assert report["identity"]["kernel_subsets"] == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if "KD x" in line)
    assert "\u00b1" not in line
    assert "over all pairs of images" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--splits", "1000"), "--splits is 1,000, but expected at most as many as there are"),
        (("--resamples", "-1"), "--resamples is -1"),
        (("--resamples", "1"), "--resamples is 1, but a spread needs 2"),
        (("--extractor-size", "3"), "--extractor-size is 3"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    words: tuple[str, ...], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = (str(folder / "samples.npz"), str(folder / "real.npz"))
    assert said in refused(capsys, *both, *words)


@pytest.mark.parametrize("resolution", ["0", "-3", "8193", "1000000000000"])
def test_a_resolution_that_cannot_be_is_refused(
    resolution: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("build-reference", str(tmp_path), str(tmp_path / "r.npz"))
    message = refused(capsys, *words, "--manifest", "m.json", "--resolution", resolution)
    assert f"--resolution is {resolution}" in message.replace("+", "")


def test_missing_inception_weights_name_what_needs_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", IMAGES[:5])
    message = refused(capsys, str(tmp_path / "a.npy"), str(tmp_path / "b.npy"))
    assert "--extractor efficientnet_lite0" in message


def test_metrics_can_be_chosen(folder: Path, weights: Path) -> None:
    report = evaluate(folder, weights, "--metrics", "is", "sfd")
    assert set(report["figures"]) == {"is_torch:test_vit", "is_torch:test_vit/std"}
    assert report["left_out"] == {"sfd": "the extractor has no spatial features"}


def test_a_trial_tells_how_its_samples_were_drawn(
    folder: Path, weights: Path, tmp_path: Path, trial_config
) -> None:
    config: TrialConfig = trial_config("sana")
    trial = tmp_path / "sana" / "seed0-0123456789ab"
    trial.mkdir(parents=True)
    (trial / "config.yaml").write_text(to_yaml(config))
    labels = np.zeros(SAMPLES, dtype=np.int64)
    save_samples(trial / "samples.npz", IMAGES[:SAMPLES], labels)
    report = evaluate(folder, weights, "--metrics", "fd", samples=str(trial))
    identity = report["identity"]
    assert identity["sampler"] == config.sample.sampler
    assert identity["steps"] == config.sample.steps
    assert identity["guidance_scale"] == config.sample.guidance_scale
    assert report["figures"] == evaluate(folder, weights, "--metrics", "fd")["figures"]


def test_a_trial_tells_which_weights_were_best(
    folder: Path, weights: Path, tmp_path: Path, trial_config, capsys: pytest.CaptureFixture[str]
) -> None:
    plain: TrialConfig = trial_config("sana")
    settings = {"best_by": "kd", "validation_samples": 12, "validation_samples_every": 2}
    changed = {
        "sample": plain.sample.model_copy(update={"weights": "best"}),
        "train": plain.train.model_copy(update=settings),
    }
    config = plain.model_copy(update=changed)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    labels = np.zeros(SAMPLES, dtype=np.int64)
    save_samples(tmp_path / "samples.npz", IMAGES[:SAMPLES], labels)
    report = evaluate(folder, weights, "--metrics", "fd", samples=str(tmp_path))
    identity, drawn = report["identity"], sampling_facts(config)
    assert identity["weights"] == "best by kd of 12 samples, every 2 steps"
    assert {key: identity[key] for key in drawn} == drawn
    (line,) = (row for row in capsys.readouterr().out.splitlines() if row.startswith("sampling:"))
    for key, value in drawn.items():
        assert f"{key.replace('_', ' ')} {value}" in line


def test_a_trial_without_samples_is_named(
    folder: Path, tmp_path: Path, trial_config, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(trial_config("sana")))
    words = ("--samples", str(tmp_path), "--reference", str(folder / "reference.npz"))
    assert "holds no samples.npz" in refused(capsys, *words)


def test_mistakes_are_one_line(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = ("--samples", str(folder / "samples.npz"))
    reference = ("--reference", str(folder / "reference.npz"))
    assert "needs SAMPLES and REFERENCE" in refused(capsys, *samples)
    message = refused(capsys, *samples, *reference, "--extractor", "efficientnet_lite0")
    assert "torch:test_vit" in message
    assert "efficientnet_lite0" in message
    assert "needs a file of weights" in refused(capsys, *samples, *reference)
    message = refused(capsys, "--samples", str(tmp_path / "no"), *reference)
    assert "no folder of images" in message
    more = ("--extractor-weights", str(weights), "--export", "x.npz")
    assert "expected adm=OUT.npz" in refused(capsys, *samples, *reference, *more)
    message = refused(capsys, *samples, "--reference", str(tmp_path / "no.npz"), *vit(weights))
    assert "there is no" in message


def test_outputs_that_cannot_be_written_are_told_before_any_work(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the reference is opened, which is not there."""
    (tmp_path / "file").write_text("")
    words = ("--samples", str(folder / "samples.npz"), "--reference", str(tmp_path / "no.npz"))
    out = str(tmp_path / "file" / "out.npz")
    for more in (
        ("--json", out),
        ("--export", f"adm={out}"),
        ("--per-class", "--per-class-csv", out),
    ):
        assert f"{out} cannot be written" in refused(capsys, *words, *more)
    message = refused(capsys, "build-reference", str(tmp_path / "no"), out, *vit(weights))
    assert f"{out} cannot be written" in message


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_figures_are_printed_though_a_file_cannot_be_written(
    processes: str,
    folder: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The export finds a folder in its place, which the JSON lies in."""
    export, out = tmp_path / "out.npz", tmp_path / "out.npz" / "out.json"
    words = ["--samples", str(folder / "samples.npz"), "--reference", str(folder / "reference.npz"),
             *vit(weights), "--metrics", "fd", "--resamples", "0", "--processes", processes,
             "--export", f"adm={export}", "--json", str(out)]  # fmt: skip
    assert main(["evaluate", *words]) == 2
    shown = capsys.readouterr()
    assert "FD (test_vit)" in shown.out
    assert f"could not be written: {export}" in shown.err.splitlines()[-1]
    assert "fd_torch:test_vit" in json.loads(out.read_text())["figures"]


def test_weights_that_are_not_finite_are_named(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt = tmp_path / "spoilt.pth"
    state = torch.load(weights, weights_only=True)
    next(iter(state.values())).view(-1)[0] = torch.nan
    torch.save(state, spoilt)
    words = [*vit(spoilt), "--batch-size", "99"]
    samples, real = str(folder / "samples.npz"), str(folder / "real.npz")
    for command in (
        ["evaluate", "--samples", samples, "--reference", real],
        ["evaluate", "build-reference", real, str(tmp_path / "r.npz")],
    ):
        assert main([*command, *words]) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert "features that are not finite" in message
        assert "spoilt.pth" in message
    assert not (tmp_path / "r.npz").exists()


def test_a_scales_data_set_becomes_a_reference(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "digits.npz"
    overrides = ["data.held_out=1777"]
    assert main(["evaluate", "build-reference", "scale:digits", str(out), *overrides,
                 *vit(weights)]) == 0  # fmt: skip
    with np.load(out) as stored:
        provenance = json.loads(str(stored["provenance"]))
    assert provenance["images"] == len(load_digits().images) - 1777
    assert provenance["resolution"] == "8x8"
    assert "scale:digits" in provenance["source"]


def test_images_of_a_manifest_become_a_reference(weights: Path, tmp_path: Path) -> None:
    for number in range(6):
        path = tmp_path / "images" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[number]).resize((20 + number, 30)).save(path)
    images, manifest, out = (tmp_path / name for name in ("images", "m.json", "r.npz"))
    assert main(["data", "make-manifest", str(images), str(manifest), "--name", "few/v1"]) == 0
    command = ["evaluate", "build-reference", str(images), str(out), *vit(weights)]
    assert main([*command, "--manifest", str(manifest), "--resolution", "16"]) == 0
    with np.load(out) as stored:
        provenance = json.loads(str(stored["provenance"]))
    assert (provenance["images"], provenance["resolution"]) == (6, "16x16")
    assert "few/v1" in provenance["source"]
    assert main(command) == 2
    assert main([*command, "--resolution", "16"]) == 2


def test_what_is_wrong_with_the_reference_is_told_before_missing_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """No Inception weights are there, which is not what the user has to mend first."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    samples = ("--samples", str(folder / "samples.npz"))
    text = tmp_path / "notes.txt"
    text.write_text("no images")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "damaged.npz").write_bytes(b"PK nothing")
    (tmp_path / "empty").mkdir()
    for name in ("notes.txt", "other.npz", "damaged.npz", "empty", "missing.npz"):
        for more in ((), ("--extractor", "inception")):
            message = refused(capsys, *samples, "--reference", str(tmp_path / name), *more)
            assert name in message
            assert "weights" not in message


def labelled(path: Path, images: np.ndarray, labels: np.ndarray) -> str:
    np.savez(path, arr_0=images, arr_1=labels)
    return str(path)


def test_each_class_is_measured_and_written(
    weights: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Samples as an `.npz` with labels, real images as class folders."""
    classes = ("ant", "bee", "cow")
    for number, image in enumerate(IMAGES[SAMPLES:]):
        path = tmp_path / "real" / classes[number % 2 + (number == REAL - 1)] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    labels = np.arange(SAMPLES) % 2
    out = tmp_path / "classes.csv"
    report = evaluate(
        folder, weights, *vit(weights), "--metrics", "fd", "--per-class", "5",
        "--per-class-csv", str(out),
        samples=labelled(tmp_path / "s.npz", IMAGES[:SAMPLES], labels),
        reference=str(tmp_path / "real"),
    )  # fmt: skip
    found = report["per_class"]
    assert found["metric"] == "fd_torch:test_vit"
    assert (found["samples_a_class"], found["reference_images_a_class"]) == (15, 19)
    assert found["left_out"] == {
        "cow": "0 samples and 1 reference images, but 5 of each are needed"
    }
    extractor = load_extractor("torch:test_vit", weights)
    ours = extract_features(IMAGES[:SAMPLES][labels == 1], Extraction(extractor, 99, "cpu"))
    real = extract_features(IMAGES[SAMPLES:][1::2][:-1], Extraction(extractor, 99, "cpu"))
    expected = frechet_distance_of_features(ours.features, real.features)
    assert found["by_class"]["bee"] == pytest.approx(expected, rel=1e-4)
    rows = list(csv.reader(out.read_text().splitlines()))
    assert rows[0][1] == "fd_torch:test_vit of 15 samples and 19 reference images"
    assert {name: value for name, value, _ in rows[1:3]} == {
        name: repr(value) for name, value in found["by_class"].items()
    }
    assert rows[3] == ["cow", "", found["left_out"]["cow"]]
    shown = capsys.readouterr().out
    assert "FD (test_vit) of 15 samples and 19 reference images a class" in " ".join(shown.split())
    assert "1 classes left out: the first, cow" in shown


def test_classes_need_labels_on_both_sides(
    weights: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = str(folder / "samples.npz")
    ours = labelled(tmp_path / "s.npz", IMAGES[:SAMPLES], np.arange(SAMPLES) % 3)
    real = labelled(tmp_path / "r.npz", IMAGES[SAMPLES:], np.arange(REAL) % 2)
    for samples, reference, message in (
        (bare, real, "samples.npz holds no labels arr_1"),
        (ours, bare, "samples.npz holds no labels arr_1"),
        (ours, str(folder / "reference.npz"), "reference.npz holds no labels arr_1"),
    ):
        words = ("--samples", samples, "--reference", reference, "--per-class", *vit(weights))
        assert message in refused(capsys, *words)
    words = ("--samples", ours, "--reference", real, *vit(weights))
    assert "a distance needs 2 images" in refused(capsys, *words, "--per-class", "1")
    assert "give that too" in refused(capsys, *words, "--per-class-csv", "x.csv")
