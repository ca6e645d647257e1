from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.main import main
from harness.machine.files import check_folder
from models.errors import UserError


def test_a_look_leaves_folders_as_they_were(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b", "--runs-dir")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").mkdir()
    check_folder(tmp_path / "kept", "--runs-dir")
    assert list(tmp_path.rglob("*")) == [tmp_path / "kept"]


@pytest.fixture(params=["a file", "under a file", "not writable", "too long"])
def unusable(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.touch()
    return {
        "a file": file,
        "under a file": file / "runs",
        "not writable": Path("/proc/runs"),
        "too long": tmp_path / ("x" * 300),
    }[request.param]


def test_a_folder_that_cannot_be_written_is_named_with_the_option(unusable: Path) -> None:
    with pytest.raises(UserError, match="--runs-dir is .*: name a folder") as caught:
        check_folder(unusable, "--runs-dir")
    assert str(unusable) in str(caught.value)


@pytest.mark.parametrize(
    "words", [["ablation", "no_kernel", "--scale", "smoke"], ["report", "no_kernel"]]
)
def test_commands_refuse_such_a_runs_folder_before_any_work(
    unusable: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--runs-dir", str(unusable)]) == 2
    captured = capsys.readouterr()
    assert "--runs-dir is" in captured.err
    assert len(captured.err.strip().splitlines()) == 1
