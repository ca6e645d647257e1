from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from PIL import Image

from harness.cli.data import add
from harness.cli.options import Parser
from harness.data.manifest import (
    LeftOut,
    Manifest,
    ManifestClass,
    ManifestImage,
    read_manifest,
    write_manifest,
)
from models.errors import UserError

SIZES = {"cat/a.png": (4, 3), "cat/b.png": (10, 10), "dog/c.png": (30, 2)}


def run(*arguments: str | Path) -> int:
    parser = Parser()
    add(parser.add_subparsers(required=True))
    options = parser.parse_args(["data", "describe", *map(str, arguments)])
    return int(options.command(options))


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for name, size in SIZES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(root / name)
    return root


@pytest.fixture
def manifest(tmp_path: Path, images: Path) -> Path:
    path = tmp_path / "pets.json"
    write(path, images, left_out=1)
    return path


def write(path: Path, images: Path, left_out: int) -> None:
    contents = {name: (images / name).read_bytes() for name in SIZES}
    manifest = Manifest(
        "pets/v1",
        0,
        None,
        (ManifestClass("cat", "[bold]Felis[/bold] catus"), ManifestClass("dog", "Canis")),
        tuple(
            ManifestImage(
                name, int(name[0] == "d"), len(content), hashlib.sha256(content).hexdigest()
            )
            for name, content in contents.items()
        ),
        tuple(LeftOut(f"cat/z{number:02}.png", "not an image") for number in range(left_out)),
    )
    write_manifest(path, manifest)


def test_numbers_are_shown(
    images: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(manifest) == 0
    text = capsys.readouterr().out
    total = sum((images / name).stat().st_size for name in SIZES)
    assert f"pets/v1: 3 images of 2 classes, {total:,} bytes\n" in text
    assert "images a class: 1 to 2, median 1.5\n" in text
    assert "left out: 1\n  cat/z00.png: not an image\n" in text
    assert f"hash: {read_manifest(manifest).hash}\n" in text
    assert "width x height" not in text
    (cat,) = [line for line in text.splitlines() if line.split()[:2] == ["0", "cat"]]
    # Names are shown as they are, not read as markup.
    assert "[bold]Felis[/bold] catus" in cat
    assert cat.split()[-2] == "2"


def test_a_source_adds_widths_and_heights(
    images: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(manifest, images) == 0
    assert (
        "width x height of 3 images: smallest 4 x 3, median 30 x 2, largest 10 x 10 (by area)\n"
        in capsys.readouterr().out
    )
    assert run(manifest, images, "--sampled", "1") == 0
    assert "width x height of 1 images: smallest" in capsys.readouterr().out


def test_a_long_list_of_what_was_left_out_is_cut(
    images: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(manifest, images, left_out=13)
    run(manifest)
    text = capsys.readouterr().out
    assert "left out: 13\n" in text
    assert "  cat/z09.png: not an image\n  and 3 more, which it lists\n" in text


def test_a_contact_sheet_is_written(
    images: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    assert run(manifest, images, "--contact-sheet", sheet) == 0
    assert capsys.readouterr().out.endswith(f"{sheet}\n")
    with Image.open(sheet) as opened:
        assert opened.format == "PNG"
        assert opened.width > 2 * 96


def test_a_contact_sheet_needs_the_images(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--contact-sheet needs SOURCE"):
        run(manifest, "--contact-sheet", tmp_path / "sheet.png")


@pytest.mark.parametrize("sheet", ["text/sheet.png", "folder", "/proc/sheet.png", "x" * 300])
def test_a_place_that_cannot_be_written_is_told_before_any_work(
    manifest: Path,
    images: Path,
    tmp_path: Path,
    sheet: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text").write_text("no folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=re.escape(sheet)) as caught:
        run(manifest, images, "--contact-sheet", tmp_path / sheet)
    assert "\n" not in str(caught.value)
    assert not capsys.readouterr().out


def test_a_missing_manifest_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no manifest"):
        run(tmp_path / "none.json")


def test_no_sample_at_all_is_told(manifest: Path, images: Path) -> None:
    with pytest.raises(UserError, match="--sampled is 0"):
        run(manifest, images, "--sampled", "0")


def test_a_sheet_that_cannot_be_written_is_told_before_images_are_read(
    manifest: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"sheet\.png cannot be written"):
        run(manifest, images, "--contact-sheet", tmp_path / "file" / "sheet.png")
