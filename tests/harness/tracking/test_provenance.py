from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tracking.provenance import provenance_tags

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True)

    git("init", "-q")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/code.py").write_text("1\n")
    git("add", ".")
    git("commit", "-qm", "first")
    return tmp_path


def test_a_clean_checkout_gives_its_commit(checkout: Path) -> None:
    tags = provenance_tags(checkout)
    head = (checkout / ".git" / (checkout / ".git" / "HEAD").read_text().split()[1]).read_text()
    assert tags["harness.git_commit"] == head.strip()
    assert tags["harness.git_dirty"] == "false"


@pytest.mark.parametrize("file", ["models/code.py", "models/new_variant.py"])
def test_changed_and_new_files_make_it_dirty(checkout: Path, file: str) -> None:
    (checkout / file).write_text("2\n")
    assert provenance_tags(checkout)["harness.git_dirty"] == "true"


def test_what_a_command_wrote_beside_the_code_changes_nothing(checkout: Path) -> None:
    (checkout / "reference.npz").write_text("figures")
    assert provenance_tags(checkout)["harness.git_dirty"] == "false"


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path) -> None:
    tags = provenance_tags(tmp_path)
    assert tags["harness.git_commit"] == "not a git checkout"
    assert "harness.git_dirty" not in tags


def test_a_folder_within_another_project_is_no_checkout(checkout: Path) -> None:
    (checkout / "unpacked").mkdir()
    tags = provenance_tags(checkout / "unpacked")
    assert tags["harness.git_commit"] == "not a git checkout"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_checkout_of_another_users_gives_its_commit_nevertheless(checkout: Path) -> None:
    before = provenance_tags(checkout)
    subprocess.run(["chown", "-R", "nobody", str(checkout)], check=True)
    refused = subprocess.run(["git", "-C", str(checkout), "status"], capture_output=True, text=True)
    assert "dubious ownership" in refused.stderr
    assert before["harness.git_commit"] != "not a git checkout"
    assert provenance_tags(checkout) == before


def test_versions_and_device_are_named_and_the_machine_is_not(tmp_path: Path) -> None:
    import mlflow
    import numpy

    tags = provenance_tags(tmp_path, threads=3)
    versions = json.loads(tags["harness.versions"])
    assert versions["python"] == platform.python_version()
    assert versions["mlflow"] == mlflow.__version__
    assert versions["numpy"] == numpy.__version__
    assert tags["harness.device"].endswith(", 3 CPU threads")
    with_gpu = provenance_tags(tmp_path, gpu="NVIDIA H100")
    assert with_gpu["harness.device"].startswith("NVIDIA H100, ")
    assert socket.gethostname() not in json.dumps(tags)


def test_the_light_parts_import_neither_mlflow_nor_torch() -> None:
    program = """
import sys
import harness.tracking.runs, harness.tracking.publisher, harness.tracking.provenance
assert not {"mlflow", "torch", "pandas", "pytorch_lightning"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)
