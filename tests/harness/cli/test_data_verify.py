from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.data import add
from harness.cli.options import Parser
from harness.data.manifest import write_manifest
from harness.data.sources import open_source
from models.errors import UserError
from tests.support.stand_ins.memory_source import make, pictures


def run(*arguments: str | Path) -> int:
    parser = Parser()
    add(parser.add_subparsers(required=True))
    options = parser.parse_args(["data", "verify", *map(str, arguments), "--processes", "1"])
    return int(options.command(options))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for entry, content in pictures(classes=2, images=3).items():
        path = tmp_path / "images" / entry
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "images"


@pytest.fixture
def manifest(images: Path, tmp_path: Path) -> Path:
    path = tmp_path / "pets.json"
    write_manifest(path, make(open_source(images), name="pets/v1"))
    return path


def test_the_same_images_pass(
    images: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(manifest, images) == 0
    shown = capsys.readouterr()
    assert shown.out == "pets/v1: all 6 images have the contents of the manifest\n"
    assert "verify  6/6" in shown.err
    assert run(manifest, images, "--sizes-only") == 0
    assert capsys.readouterr().out == "pets/v1: all 6 images have the sizes of the manifest\n"


def test_other_content_of_the_same_size_is_found_by_reading_alone(
    images: Path, manifest: Path
) -> None:
    path = images / "c1" / "i1.png"
    path.write_bytes(path.read_bytes()[::-1])
    assert run(manifest, images, "--sizes-only") == 0
    with pytest.raises(UserError, match="c1/i1.png has other content"):
        run(manifest, images)


@pytest.mark.parametrize("options", [(), ("--sizes-only",)])
def test_a_missing_image_is_told(images: Path, manifest: Path, options: tuple[str, ...]) -> None:
    (images / "c0" / "i2.png").unlink()
    with pytest.raises(UserError, match="c0/i2.png is missing; restore"):
        run(manifest, images, *options)


def test_a_missing_manifest_or_source_is_told(images: Path, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no manifest .*none"):
        run(tmp_path / "none", images)
    with pytest.raises(UserError, match="there is no .*none"):
        run(manifest, tmp_path / "none")
