"""Whole ablations in processes of their own, at a size that takes seconds a trial."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from mlflow import MlflowClient

from harness.cli.main import main
from harness.machine.environment import ROOT
from harness.vocabulary import names
from harness.vocabulary.names import SAMPLES
from tests.support.command import output_of
from tests.support.stand_ins.random_weights import write_random_vit

TINY = [
    *("train.steps=12", "train.batch_size=16", "train.checkpoint_every=4", "model.depth=1"),
    *("evaluate.samples=20", "evaluate.reference_images=40", "cluster.threads_per_worker=1"),
]
VARIANTS = ("dydila", "no_differential", "sana")


def command(folder: Path, *more: str, name: str = "no_differential") -> list[str]:
    return [
        *(sys.executable, "-m", "harness", "ablation", name, "--scale", "smoke"),
        *("--seeds", "1", "--runs-dir", str(folder / "runs"), *TINY, *more),
    ]


def store_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "MLFLOW_TRACKING_URI": store_of(folder)}


def run(folder: Path, *more: str, name: str = "no_differential") -> str:
    return output_of(*command(folder, *more, name=name)[3:], store=store_of(folder))


def report(folder: Path, runs_dir: Path, name: str = "no_differential") -> str:
    """Made from the store in `folder`; what it prints."""
    words = ("report", name, "--scale", "smoke", "--runs-dir", runs_dir)
    return output_of(*words, store=store_of(folder))


def client(folder: Path) -> MlflowClient:
    return MlflowClient(store_of(folder))


def runs_of_kind(folder: Path, kind: str) -> list[Any]:
    store = client(folder)
    experiment = store.get_experiment_by_name("smoke")
    assert experiment is not None
    return list(
        store.search_runs([experiment.experiment_id], f"tags.`{names.TAG_KIND}` = '{kind}'")
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, new_store: Callable[[Path], str]) -> Path:
    """Run as a user does, in a process of its own."""
    folder = tmp_path_factory.mktemp("ablation")
    new_store(folder)
    done = subprocess.run(
        command(folder), capture_output=True, text=True, cwd=ROOT, env=environment(folder)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def test_parent_and_child_runs_carry_everything(finished: Path) -> None:
    (parent,) = runs_of_kind(finished, names.KIND_ABLATION)
    children = runs_of_kind(finished, names.KIND_TRIAL)
    assert {child.data.tags[names.TAG_VARIANT] for child in children} == set(VARIANTS)
    for child in children:
        assert child.info.status == "FINISHED"
        assert child.data.tags[names.TAG_PARENT] == parent.info.run_id
        metrics = child.data.metrics
        expected = {
            "fd_efficientnet_lite0",
            "is_efficientnet_lite0",
            "kd_efficientnet_lite0",
            "precision_efficientnet_lite0",
            "coverage_efficientnet_lite0",
            names.VALIDATION_LOSS,
            names.TRAIN_IMAGES_PER_SECOND,
            names.SAMPLING_IMAGES_PER_SECOND,
            names.PARAMETERS,
            names.MACS,
            names.FLOPS,
            *(names.HEADS, names.HEAD_WIDTH, names.QKV_BIAS),
            names.TRAIN_LOSS,
            names.GRADIENT_NORM,
            names.ATTENTION_ENTROPY,
            names.ATTENTION_EFFECTIVE_RANK,
            names.TOKEN_SIMILARITY,
            names.at_layer(names.ATTENTION_ENTROPY, 0),
            names.at_timestep(names.ATTENTION_ENTROPY, 240),
        }
        assert expected <= metrics.keys()
        assert child.data.params["train.steps"] == "12"
        for tag in (names.TAG_GIT_COMMIT, names.TAG_DEVICE, names.TAG_VERSIONS, names.TAG_SEED):
            assert child.data.tags[tag]
        assert child.data.tags[names.TAG_DATA] == "digits, 8x8"
        identity = json.loads(child.data.tags[names.TAG_METRIC_IDENTITY])
        assert identity["samples"] == 20
        assert identity["sampler"] == "flow_heun"
        artifacts = {f.path for f in client(finished).list_artifacts(child.info.run_id)}
        assert {"config.yaml", "samples.png", "grid.npz"} <= artifacts
        assert {"attention_probe.csv", "attention_probe.png"} <= artifacts
        routed = child.data.tags[names.TAG_VARIANT] != "sana"
        assert (names.ROUTING_USAGE_ENTROPY in metrics) == routed
        assert (names.ROUTING_ENTROPY in metrics) == routed


def test_layout_of_the_outputs(finished: Path) -> None:
    for variant in VARIANTS:
        (folder,) = (finished / "runs" / "smoke" / variant).iterdir()
        assert re.fullmatch(r"seed0-[0-9a-f]{12}", folder.name)
    report = finished / "runs" / "reports" / "smoke" / "no_differential"
    for file in ("table.csv", "table.tex", "table.md", "samples.png"):
        assert (report / file).stat().st_size > 0


def test_table_holds_the_figures_of_the_runs(finished: Path) -> None:
    report = finished / "runs" / "reports" / "smoke" / "no_differential"
    with (report / "table.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["row"] == "seed"]
    trials = {
        r.data.tags[names.TAG_VARIANT]: r.data.metrics for r in runs_of_kind(finished, "trial")
    }
    measured = [row for row in rows if row["variant"] in trials]
    assert Counter(row["variant"] for row in measured) == Counter(VARIANTS)
    for row in measured:
        for metric in ("fd_efficientnet_lite0", names.VALIDATION_LOSS, names.FLOPS):
            assert float(row[metric]) == trials[row["variant"]][metric]


def test_variants_are_sampled_from_the_same_noise_and_labels(finished: Path) -> None:
    labels = []
    for variant in VARIANTS:
        (path,) = (finished / "runs" / "smoke" / variant).glob("*/samples.npz")
        with np.load(path, allow_pickle=False) as stored:
            labels.append(stored["arr_1"].tolist())
    assert labels[0] == labels[1] == labels[2]


def test_the_same_command_again_reuses_everything(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("runs/smoke/*/*/*.npz")}
    output = run(finished)
    assert "3 of 3 trials are finished already and are reused" in output
    assert {p: p.stat().st_mtime_ns for p in finished.glob("runs/smoke/*/*/*.npz")} == before
    assert len(runs_of_kind(finished, names.KIND_TRIAL)) == 3
    assert len(runs_of_kind(finished, names.KIND_ABLATION)) == 1


def test_another_ablation_shares_the_full_model(copied: Path) -> None:
    output = run(copied, name="no_kernel")
    assert "2 of 3 trials are finished already and are reused: dydila seed 0; sana seed 0" in output
    assert len(list(copied.glob("runs/smoke/dydila/*"))) == 1
    assert (copied / "runs/reports/smoke/no_kernel/table.csv").exists()


def test_report_needs_mlflow_alone(finished: Path, tmp_path: Path) -> None:
    report(finished, tmp_path / "elsewhere")
    rebuilt = tmp_path / "elsewhere" / "reports" / "smoke" / "no_differential" / "table.csv"
    original = finished / "runs" / "reports" / "smoke" / "no_differential" / "table.csv"
    assert rebuilt.read_text() == original.read_text()


def test_a_report_is_of_the_seeds_and_overrides_that_are_typed(
    copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copied / 'mlflow.db'}")
    words = ["report", *command(copied)[4:]]
    (copied / "runs/reports/smoke/no_differential/table.csv").unlink()
    assert main(words) == 0
    assert (copied / "runs/reports/smoke/no_differential/table.csv").is_file()
    for others in (["--seeds", "2"], ["train.learning_rate=2e-4"]):
        assert main([*words, *others]) == 2
        assert "was not run with these seeds and KEY=VALUE" in capsys.readouterr().err


def test_a_lost_store_is_filled_again_without_training(
    copied: Path, new_store: Callable[[Path], str]
) -> None:
    new_store(copied)
    output = run(copied)
    assert "3 of 3 trials are finished already" in output
    assert len(runs_of_kind(copied, names.KIND_TRIAL)) == 3
    (child, *_) = runs_of_kind(copied, names.KIND_TRIAL)
    history = client(copied).get_metric_history(child.info.run_id, names.TRAIN_LOSS)
    assert [point.step for point in history] == sorted({point.step for point in history})


def test_a_lost_and_a_damaged_record_of_finished_trials_are_written_again(copied: Path) -> None:
    """In a fresh store, so that the table can hold nothing but what the results have."""
    table = copied / "runs" / "reports" / "smoke" / "no_differential" / "table.csv"
    before = table.read_text()
    (copied / "mlflow.db").unlink()
    (lost,) = copied.glob("runs/smoke/dydila/*/tracking.jsonl")
    lost.unlink()
    (damaged,) = copied.glob("runs/smoke/sana/*/tracking.jsonl")
    damaged.write_bytes(b"\x00" + damaged.read_bytes()[1:])
    output = " ".join(run(copied).split())
    assert "record of dydila seed 0 was lost or damaged and is written again" in output
    assert "record of sana seed 0 was lost or damaged" in output

    (result,) = copied.glob("runs/smoke/dydila/*/result.json")
    metrics = json.loads(result.read_text())["metrics"]
    keys = ["row", "variant", "seed", *(key for key in metrics if not names.is_detail(key))]

    def figures(text: str) -> list[list[str | None]]:
        return [[row.get(key) for key in keys] for row in csv.DictReader(io.StringIO(text))]

    assert figures(table.read_text()) == figures(before)
    assert all(value is not None for row in figures(before) for value in row)
    (again,) = runs_of_kind(copied, names.KIND_ABLATION)
    assert again.info.status == "FINISHED"


def test_no_table_since_no_server_answers_is_a_failure(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:s3cr3t@127.0.0.1:9")
    assert main(command(copied)[3:]) == 1
    printed = "".join(capsys.readouterr())
    assert "No report yet" in printed
    words = ["report", "no_differential", "--scale", "smoke", "--runs-dir", str(copied / "runs")]
    assert main(words) == 2
    printed += "".join(capsys.readouterr())
    assert "http://127.0.0.1:9" in printed
    assert "s3cr3t" not in printed


def test_a_size_that_an_extractor_does_not_take_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_of(tmp_path))
    weights = write_random_vit(tmp_path / "vit.pth")
    extractor = ("evaluate.extractor=torch:test_vit", f"evaluate.extractor_weights={weights}")
    assert main(command(tmp_path, *extractor, "evaluate.extractor_size=100")[3:]) == 2
    assert "such as 96 or 112" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.rglob("tracking.jsonl"))
    assert not list(tmp_path.rglob("log*.txt"))


@pytest.mark.parametrize("name", ["x" * 300, "../outside", ""])
def test_a_name_that_no_ablation_can_have_is_refused(
    finished: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["report", name, "--runs-dir", str(finished / "runs")]) == 2
    (line,) = "".join(capsys.readouterr()).strip().splitlines()
    assert "expected the name of one that was run" in line


def test_damaged_files_of_finished_trials_are_made_again(
    copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = copied / "runs" / "reports" / "smoke" / "no_differential" / "table.csv"
    before = {row["variant"]: row for row in csv.DictReader(table.read_text().splitlines())}
    trial = {v: next((copied / "runs" / "smoke" / v).iterdir()) for v in VARIANTS}
    cut = trial["sana"]
    whole = (cut / "result.json").read_bytes()
    (cut / "result.json").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray((cut / "ema.safetensors").read_bytes())
    flipped[len(flipped) // 2] ^= 0x10
    (cut / "ema.safetensors").write_bytes(flipped)
    (cut / "sampled.json").write_text('{"colour": "blue"}')
    (floor,) = (copied / "runs" / "references").glob("floor-*.json")
    floor.write_text("[]")
    table.unlink()
    output = "".join(run(copied).split())
    assert "2of3trialsarefinishedalreadyandarereused" in output
    for damaged in (cut / "result.json", floor):
        assert caplog.text.count(f"{damaged} is damaged; what it holds is measured again") == 1
    for healed in (
        f"{cut / 'ema.safetensors'}isdamaged",
        f"{cut / SAMPLES}:thesamplesaredrawnagain",
    ):
        assert output.count(f"sana/seed0warning:{healed}") == 1
    again = {row["variant"]: row for row in csv.DictReader(table.read_text().splitlines())}
    assert again.keys() == before.keys()
    for variant, row in before.items():
        for column in ("fd_efficientnet_lite0", names.VALIDATION_LOSS, names.FLOPS):
            assert again[variant][column] == row[column]
    assert json.loads((cut / "result.json").read_text()).keys() == json.loads(whole).keys()


@pytest.mark.slow
def test_status_knows_the_signal_that_killed_a_worker(
    tmp_path: Path, new_store: Callable[[Path], str]
) -> None:
    new_store(tmp_path)
    process = subprocess.Popen(
        command(tmp_path, "cluster.workers=1"),
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment(tmp_path),
    )
    wait_for("runs/smoke/*/*/checkpoints/step-00000004.ckpt", tmp_path, process)
    (worker,) = psutil.Process(process.pid).children()
    worker.kill()
    process.wait()
    words = ["status", "no_differential", "--scale", "smoke", "--seeds", "1", *TINY]
    shown = output_of(*words, "--runs-dir", str(tmp_path / "runs"), store=store_of(tmp_path))
    assert "worker killed by signal 9 (Killed)" in " ".join(shown.split())
    assert "without a word" not in shown


def wait_for(pattern: str, folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while not any(folder.glob(pattern)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_report_shows_what_is_finished_of_an_ablation_that_was_not_followed_to_its_end(
    copied: Path,
) -> None:
    """Killed without warning, in its third trial: the other two are those of `finished`."""
    process = subprocess.Popen(
        command(copied, name="no_kernel"),
        stdout=subprocess.DEVNULL, text=True, cwd=ROOT, env=environment(copied),
    )  # fmt: skip
    wait_for("runs/smoke/no_kernel/*/checkpoints/step-*.ckpt", copied, process)
    process.kill()
    process.wait()
    shown = report(copied, copied / "runs", name="no_kernel")
    with (copied / "runs/reports/smoke/no_kernel/table.csv").open() as file:
        rows = {row["variant"] for row in csv.DictReader(file) if row["row"] == "seed"}
    assert rows >= {"dydila", "sana"}
    assert "no_kernel" not in rows
    assert "no_kernel seed 0 (" in " ".join(shown.split())


@pytest.mark.slow
def test_launcher_killed_without_warning_then_the_same_command_finishes(
    finished: Path, tmp_path: Path, new_store: Callable[[Path], str]
) -> None:
    new_store(tmp_path)
    process = subprocess.Popen(
        command(tmp_path), stdout=subprocess.DEVNULL, text=True, cwd=ROOT, env=environment(tmp_path)
    )
    wait_for("runs/smoke/*/*/checkpoints/step-00000008.ckpt", tmp_path, process)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    run(tmp_path)
    for variant in VARIANTS:
        (mine,) = tmp_path.glob(f"runs/smoke/{variant}/*/ema.safetensors")
        (undisturbed,) = finished.glob(f"runs/smoke/{variant}/*/ema.safetensors")
        assert mine.read_bytes() == undisturbed.read_bytes()
    trials = runs_of_kind(tmp_path, names.KIND_TRIAL)
    assert len(trials) == 3
    assert {trial.info.status for trial in trials} == {"FINISHED"}


@pytest.mark.slow
def test_two_launchers_of_the_same_ablation_run_each_trial_once(tmp_path: Path) -> None:
    launchers = [
        subprocess.Popen(
            command(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=environment(tmp_path),
        )
        for _ in range(2)
    ]
    outputs = [launcher.communicate(timeout=500)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], outputs
    assert len(runs_of_kind(tmp_path, names.KIND_TRIAL)) == 3
    for journal in tmp_path.glob("runs/smoke/*/*/tracking.jsonl"):
        events = [json.loads(line) for line in journal.read_text().splitlines()]
        kinds = Counter(event["event"] for event in events)
        # Nobody took up a trial that the other had begun or finished, and no step was done twice.
        assert (kinds["begin"], kinds["resume"], kinds["end"]) == (1, 0, 1)
        steps = [event["step"] for event in events if names.TRAIN_LOSS in event.get("values", {})]
        assert steps == sorted(set(steps))
