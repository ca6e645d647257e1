from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli.listing import Listed, list_files
from harness.cli.main import main
from harness.config.layers import NAME_WORDS, find_file, names
from harness.config.mistakes import Mistake


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for kind in ("ablation", "scale", "cluster"):
        (tmp_path / "e" / kind).mkdir(parents=True)
    return tmp_path / "e"


def test_ablations_are_listed_with_their_questions_and_broken_ones_with_their_error(
    root: Path,
) -> None:
    good = "question: |\n  Does it\n  work?\nbaseline: a\nseeds: [0]\nvariants: {a: {}}\n"
    (root / "ablation/b_good.yaml").write_text(good)
    (root / "ablation/c_no_seeds.yaml").write_text(good.replace("seeds: [0]\n", ""))
    (root / "ablation/a_no_yaml.yaml").write_text("question: [\n")
    (root / "ablation/d d.yaml").write_text(good)
    (root / "ablation/notes.txt").write_text("x")
    (root / "ablation/folder.yaml").mkdir()
    assert list_files("ablation", root) == (
        Listed(
            "a_no_yaml",
            "",
            "e/ablation/a_no_yaml.yaml:2: not valid YAML: while parsing a flow node, expected the "
            "node content, but found '<stream end>'",
        ),
        Listed("b_good", "Does it work?", None),
        Listed(
            "c_no_seeds",
            "Does it work?",
            "e/ablation/c_no_seeds.yaml:1: seeds: missing key",
        ),
        Listed(
            "d d",
            "Does it work?",
            f"e/ablation/d d.yaml: is no name for a file of the catalogue; expected {NAME_WORDS}",
        ),
    )


def test_scales_are_listed_with_what_they_are_and_broken_ones_with_their_error(
    root: Path,
) -> None:
    (root / "scale/big.yaml").write_text("about: all of it\ntrain.steps: 1\n")
    (root / "scale/lost.yaml").write_text("about: lost\nextends: ../bas.yaml\n")
    (root / "scale/mute.yaml").write_text("extends: big.yaml\n")
    assert list_files("scale", root) == (
        Listed("big", "all of it", None),
        Listed("lost", "lost", "e/scale/lost.yaml:2: extends: there is no file e/bas.yaml"),
        Listed("mute", "", None),
    )


def test_a_list_of_a_folder_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "--experiments-dir", str(tmp_path / "nowhere")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--experiments-dir {tmp_path / 'nowhere'}" in line


def test_without_a_folder_nothing_is_listed(tmp_path: Path) -> None:
    assert list_files("ablation", tmp_path / "nowhere") == ()
    assert list_files("scale", tmp_path / "nowhere") == ()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("digts", "unknown scale 'digts'; expected one of cifar10, digits (did you mean digits?)"),
        ("qwxz", "unknown scale 'qwxz'; expected one of cifar10, digits"),
        ("", "unknown scale ''; expected one of cifar10, digits"),
        ("../base", "unknown scale '../base'; expected one of cifar10, digits"),
        ("digits.yaml", "unknown scale 'digits.yaml'; expected one of cifar10, digits "
         "(did you mean digits?)"),
        ("my scale", "unknown scale 'my scale'; expected one of cifar10, digits"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_told_with_all_valid_ones(root: Path, name: str, line: str) -> None:
    for file in ("base.yaml", "scale/digits.yaml", "scale/cifar10.yaml", "scale/my scale.yaml"):
        (root / file).touch()
    mistakes: list[Mistake] = []
    assert find_file("scale", name, root, mistakes) is None
    assert [str(mistake) for mistake in mistakes] == [f"command line: scale: {line}"]
    assert names("scale", root) == ("cifar10", "digits")
    assert find_file("scale", "digits", root, mistakes) == root / "scale/digits.yaml"


def test_an_empty_folder_is_named(root: Path) -> None:
    mistakes: list[Mistake] = []
    assert find_file("scale", "digits", root, mistakes) is None
    assert str(mistakes[0]) == (
        "command line: scale: unknown scale 'digits': e/scale holds no .yaml file"
    )


def test_the_catalogue_is_read_without_torch() -> None:
    code = "import sys, harness.config.layers; sys.exit('torch' in sys.modules)"
    repository = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=repository).returncode == 0
