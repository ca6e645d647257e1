from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.cli.data import make_manifest
from harness.cli.options import Parser
from harness.data.class_lists import read_class_list
from harness.data.manifest import Manifest, read_manifest
from models.errors import UserError


def run(*arguments: str | Path) -> int:
    parser = Parser()
    make_manifest.add(parser.add_subparsers(required=True))
    options = parser.parse_args(["make-manifest", *map(str, arguments), "--processes", "1"])
    return int(options.command(options))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """4 images of each of 4 classes, one of ImageNet and of sub-in-10."""
    stream = np.random.default_rng(0)
    root = tmp_path / "images"
    for name in ("ape", "cow", "emu", "n02105505"):
        (root / name).mkdir(parents=True)
        for number in range(4):
            pixels = stream.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "made" / "zoo.json"


def classes(manifest: Manifest) -> list[tuple[str, str]]:
    return [(item.id, item.name) for item in manifest.classes]


def test_files_that_are_no_images_are_counted(
    source: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "ape" / "4.HEIC").touch()
    (source / ".ipynb_checkpoints").mkdir()
    assert run(source, out) == 0
    shown = f"{source}: left out 1 image to convert to PNG, as they are not read here (.heic 1), "
    assert f"{shown}1 hidden file or folder" in capsys.readouterr().out.splitlines()


def test_all_images_become_a_manifest_named_after_its_file(
    source: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(source, out) == 0
    manifest = read_manifest(out)
    assert (manifest.name, manifest.seed, manifest.per_class) == ("zoo", None, None)
    assert classes(manifest) == [
        ("ape", "ape"),
        ("cow", "cow"),
        ("emu", "emu"),
        ("n02105505", "komondor"),
    ]
    first = (source / "ape" / "0.png").read_bytes()
    assert manifest.images[0].sha256 == hashlib.sha256(first).hexdigest()
    assert len(manifest.images) == 16
    shown = capsys.readouterr()
    assert f"zoo: 16 images of 4 classes, hash {manifest.hash}\n{out}\n" == shown.out
    assert "read  16/16" in shown.err


def test_classes_and_images_are_drawn_by_seed(source: Path, out: Path) -> None:
    assert run(source, out, "--classes", "2", "--per-class", "3", "--seed", "5") == 0
    manifest = read_manifest(out)
    assert (len(manifest.classes), len(manifest.images)) == (2, 6)
    assert (manifest.name, manifest.seed, manifest.per_class) == ("zoo", 5, 3)


def test_the_seed_is_0_unless_given(source: Path, out: Path, tmp_path: Path) -> None:
    run(source, out, "--per-class", "2")
    run(source, tmp_path / "zoo.json", "--per-class", "2", "--seed", "0")
    assert (tmp_path / "zoo.json").read_bytes() == out.read_bytes()


def test_a_file_gives_classes_in_its_order(source: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("emu\tDromaius\nape\n")
    run(source, out, "--classes-file", tmp_path / "mine.txt", "--name", "mine/v2")
    manifest = read_manifest(out)
    assert classes(manifest) == [("emu", "Dromaius"), ("ape", "ape")]
    assert manifest.name == "mine/v2"


def imagenet(path: Path, class_list: str) -> Path:
    """A zip of 2 tiny images of each class of a list, and of one more class."""
    names = [*(item.id for item in read_class_list(class_list)), "n99999999"]
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            for number in range(2):
                image = f"P6 1 1 255\n{name[-2:]}{number}".encode()
                archive.writestr(f"train/{name}/{name}_{number}.ppm", image)
    return path


def test_sub_in_is_named_by_its_version(tmp_path: Path, out: Path) -> None:
    source = imagenet(tmp_path / "imagenet.zip", "sub-in-100/v1")
    run(source, out, "--class-list", "sub-in-100/v1")
    manifest = read_manifest(out)
    assert manifest.name == "sub-in-100/v1"
    assert manifest.classes == read_class_list("sub-in-100/v1")
    assert len(manifest.images) == 200
    assert manifest.seed is None


def test_a_part_of_sub_in_says_so_in_its_name(tmp_path: Path, out: Path) -> None:
    source = imagenet(tmp_path / "imagenet.zip", "sub-in-10/v1")
    run(source, out, "--class-list", "sub-in-10/v1", "--per-class", "1", "--seed", "3")
    manifest = read_manifest(out)
    assert manifest.name == "sub-in-10/v1-1-per-class-seed-3"
    assert (len(manifest.images), manifest.seed, manifest.per_class) == (10, 3, 1)


def test_a_source_that_lacks_classes_of_a_list_is_told(source: Path, out: Path) -> None:
    with pytest.raises(UserError, match="has no class n01693334, and 8 more of those asked for"):
        run(source, out, "--class-list", "sub-in-10/v1")
    assert not out.exists()


def test_an_unknown_list_is_told(source: Path, out: Path) -> None:
    with pytest.raises(UserError, match="no class list sub-in-10; .*did you mean sub-in-10/v1"):
        run(source, out, "--class-list", "sub-in-10")


def test_what_was_left_out_is_shown(
    source: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "cow" / "1.png").write_bytes(b"no image")
    (source / "emu" / "2.png").write_bytes(b"")
    assert run(source, out) == 0
    shown = "left out: 2, the first cow/1.png (not an image)"
    assert shown in capsys.readouterr().out
    assert [item.id for item in read_manifest(out).left_out] == ["cow/1.png", "emu/2.png"]


def test_strict_refuses_them(source: Path, out: Path) -> None:
    (source / "cow" / "1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 of 16 images cannot be read: cow/1.png \(not an"):
        run(source, out, "--strict")
    assert not out.exists()


def test_the_same_choice_again_gives_the_same_bytes(source: Path, out: Path) -> None:
    run(source, out, "--per-class", "2")
    before = out.read_bytes()
    assert run(source, out, "--per-class", "2") == 0
    assert out.read_bytes() == before


def test_another_manifest_is_replaced_by_force_alone(source: Path, out: Path) -> None:
    run(source, out, "--per-class", "2")
    before = out.read_bytes()
    with pytest.raises(UserError, match=r"zoo.json holds another manifest, zoo \(.*--force"):
        run(source, out, "--per-class", "2", "--seed", "1")
    assert out.read_bytes() == before
    assert run(source, out, "--per-class", "2", "--seed", "1", "--force") == 0
    assert read_manifest(out).seed == 1


def test_another_file_is_replaced_by_force_alone(source: Path, out: Path) -> None:
    out.parent.mkdir()
    out.write_text("my notes")
    with pytest.raises(UserError, match=r"zoo.json is there already: .*--force replaces it"):
        run(source, out)
    assert out.read_text() == "my notes"
    assert run(source, out, "--force") == 0
    assert len(read_manifest(out).images) == 16


def test_a_manifest_that_was_edited_by_hand_is_not_overwritten(source: Path, out: Path) -> None:
    run(source, out)
    content = json.loads(out.read_text())
    out.write_text(json.dumps({**content, "name": "mine"}))
    with pytest.raises(UserError, match="edited by hand or damaged.*--force replaces it"):
        run(source, out)
    assert json.loads(out.read_text())["name"] == "mine"


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_folder_is_never_replaced(source: Path, tmp_path: Path, force: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="is a folder, but a file is to be written there"):
        run(source, tmp_path, *force)


@pytest.mark.parametrize("place", ["notes/zoo.json", "/proc/zoo.json", "x" * 300])
def test_a_place_that_nothing_can_be_written_to_is_told_before_images_are_read(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "notes").write_text("")
    with pytest.raises(UserError, match=rf"{place} cannot be written ") as caught:
        run(tmp_path / "none", tmp_path / place)
    assert "\n" not in str(caught.value)


def test_a_missing_source_is_told(tmp_path: Path, out: Path) -> None:
    with pytest.raises(UserError, match="there is no .*none"):
        run(tmp_path / "none", out)


@pytest.mark.parametrize("choice", [("--classes-file", "x"), ("--class-list", "sub-in-10/v1")])
def test_classes_are_chosen_in_one_way(source: Path, out: Path, choice: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="not allowed with"):
        run(source, out, "--classes", "2", *choice)
