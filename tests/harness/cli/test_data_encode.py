from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness.cli.data import encode
from harness.cli.options import Parser
from harness.data.latents import encode as encode_command
from harness.data.latents.autoencoder import load_autoencoder
from harness.data.latents.cache import open_cache
from harness.data.manifest import Manifest, ManifestClass, ManifestImage, write_manifest
from harness.machine.place import TASK_VARIABLES, choose_device
from models.errors import UserError

IMAGES = 24
Encode = Callable[..., Path]


def run(*arguments: str | Path) -> int:
    parser = Parser()
    encode.add(parser.add_subparsers(required=True))
    options = parser.parse_args(["encode", *map(str, arguments)])
    return int(options.command(options))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a manifest of theirs, and an autoencoder."""
    from diffusers import AutoencoderKL

    root = tmp_path_factory.mktemp("made")
    stream = np.random.default_rng(0)
    images = []
    for number in range(IMAGES):
        name = f"{'ab'[number * 2 // IMAGES]}/{number:03}.png"
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stream.integers(0, 256, (20, 16, 3), dtype=np.uint8)).save(path)
        content = path.read_bytes()
        label = "ab".index(name[0])
        images.append(ManifestImage(name, label, len(content), hashlib.sha256(content).hexdigest()))
    classes = (ManifestClass("a", "a"), ManifestClass("b", "b"))
    manifest = Manifest("two/v1", None, None, classes, tuple(images), ())
    write_manifest(root / "two.json", manifest)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
        ).save_pretrained(root / "autoencoder", safe_serialization=True)
    return root


def arguments(made: Path, out: Path, **options: Any) -> list[str]:
    values = {
        "autoencoder": made / "autoencoder",
        "manifest": made / "two.json",
        "resolution": 16,
        "batch_size": 4,
        "images_per_shard": 6,
        "loaders": 2,
        "device": "cpu",
        **options,
    }
    named = [(f"--{key.replace('_', '-')}", str(value)) for key, value in values.items()]
    return [str(made / "images"), str(out), *(word for pair in named for word in pair)]


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("shard-*")}


def test_a_folder_of_images_becomes_a_folder_of_latents(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments(made, tmp_path / "latents", dtype="float32")) == 0
    cache = open_cache(tmp_path / "latents")
    assert not cache.missing_shards
    captured = capsys.readouterr()
    assert f"two/v1: {IMAGES} images and their mirror images, {IMAGES} of them encoded" in (
        captured.out
    )
    assert f"identity {cache.identity}" in captured.out
    assert captured.out.splitlines()[-1] == str(tmp_path / "latents")
    assert f"{IMAGES}/{IMAGES}" in captured.err

    image_id = cache.manifest.images[7].id
    # The middle 16 of 20 rows.
    pixels = np.asarray(Image.open(made / "images" / image_id))[2:18]
    seen = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    expected = load_autoencoder(str(made / "autoencoder"), "cpu").encode(seen)[0]
    torch.testing.assert_close(cache.moments(7, mirrored=False), expected, rtol=1e-4, atol=1e-5)


def test_the_same_command_again_has_nothing_to_do(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*arguments(made, tmp_path))
    before = shards(tmp_path)
    capsys.readouterr()
    assert run(*arguments(made, tmp_path)) == 0
    assert f"{IMAGES} images and their mirror images, 0 of them" in capsys.readouterr().out
    assert shards(tmp_path) == before


@pytest.mark.parametrize(
    ("out", "processes"),
    [("text/latents", 1), ("text", 1), ("/proc/latents", 1), ("x" * 300, 1), ("text/latents", 2)],
)
def test_a_place_that_cannot_be_written_is_one_line(
    made: Path, tmp_path: Path, out: str, processes: int
) -> None:
    (tmp_path / "text").write_text("no folder")
    with pytest.raises(UserError, match=re.escape(out)) as caught:
        run(*arguments(made, tmp_path / out, processes=processes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "told",
    [
        {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
        {
            "SLURM_PROCID": "1",
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_LOCALID": "1",
            "SLURM_NODELIST": "a",
            "SLURM_JOB_ID": "1",
        },
    ],
)
def test_only_the_first_of_a_job_speaks(
    made: Path,
    tmp_path: Path,
    told: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert run(*arguments(made, tmp_path)) == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    assert not open_cache(tmp_path).missing_shards


def test_no_process_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--processes is 0"):
        run(*arguments(made, tmp_path, processes=0))


def test_a_rank_takes_the_gpu_of_its_place_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name in TASK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert choose_device("auto") == torch.device("cuda", 0)
    for name, value in {
        "RANK": "6",
        "WORLD_SIZE": "8",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device("cuda") == torch.device("cuda", 3)
    monkeypatch.setenv("LOCAL_RANK", "6")
    assert choose_device("cuda") == torch.device("cuda", 2)
    assert choose_device("cpu") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="--device is cuda, but PyTorch finds no usable"):
        choose_device("cuda")


@pytest.mark.slow
def test_several_processes_make_the_same_files(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*arguments(made, tmp_path / "one"))
    capsys.readouterr()
    assert run(*arguments(made, tmp_path / "two", processes=2)) == 0
    assert shards(tmp_path / "one") == shards(tmp_path / "two")
    assert f"{IMAGES} of them encoded now" in capsys.readouterr().out


@pytest.mark.slow
def test_a_mistake_that_a_process_finds_is_told_as_one(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    path = copy / "images" / "b" / "020.png"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"b/020.png .* is not the image of the manifest two/v1"):
        run(*arguments(copy, tmp_path / "out", processes=2))


@pytest.mark.slow
def test_a_killed_command_is_resumed_by_the_same_command(
    made: Path, tmp_path: Path, subprocess_environment: dict[str, Any]
) -> None:
    run(*arguments(made, tmp_path / "undisturbed", images_per_shard=1))
    out = tmp_path / "out"
    script = "import sys; from harness.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "data", "encode"]
    command += arguments(made, out, images_per_shard=1)
    with subprocess.Popen(command, env=subprocess_environment) as process:
        while not list(out.glob("shard-*")):
            assert process.poll() is None
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
    written = {path.name: path.stat().st_ino for path in out.glob("shard-*")}
    assert open_cache(out).missing_shards
    assert subprocess.run(command, env=subprocess_environment, check=False).returncode == 0
    assert shards(out) == shards(tmp_path / "undisturbed")
    assert (
        written.items() <= {path.name: path.stat().st_ino for path in out.glob("shard-*")}.items()
    )


def test_processes_that_died_are_told_with_their_log(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_command, "_WORKER", "os:abort")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(
        UserError, match=r"2 of 2 processes ended, the first: .*log: .*0\.log"
    ) as told:
        run(*arguments(made, tmp_path / "out", processes=2))
    assert "\n" not in str(told.value)
