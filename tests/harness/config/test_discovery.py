"""What can be named is what is there, and a new one of each kind is one new file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.config import discovery
from harness.config.discovery import data_sets, extractors, offer_of, samplers
from harness.data import datasets
from harness.evaluation.extractors import extractor_names
from harness.machine.environment import ROOT


def test_what_is_found_as_text_is_what_the_packages_offer() -> None:
    assert set(samplers()) == {"ddpm", "ddim", "dpm_solver", "flow_euler", "flow_heun"}
    assert {name for name, offer in extractors().items() if not offer.is_family} == set(
        extractor_names()
    )
    assert set(data_sets()) == {"cifar10", "digits", "images"}
    assert samplers()["ddim"].constants["OBJECTIVE"] == "ddpm"


def test_nothing_is_imported_to_find_them() -> None:
    code = (
        "import sys; from harness.config.discovery import *; samplers(), extractors(), data_sets();"
        "sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'timm')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("inception", "inception"),
        ("torch:vit_base_patch14_dinov2.lvd142m", "torch"),
        ("torch", None),
        ("torch:", None),
        ("torch:../x", None),
        ("inception:x", None),
        ("base", None),
    ],
)
def test_a_family_takes_a_members_name_and_nothing_else_does(name: str, found: str | None) -> None:
    offer = offer_of(name, extractors())
    assert (offer and offer.name) == found


def test_a_module_without_the_contracts_function_offers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("NAMES = ('one', 'two')\n\n\ndef load(config):\n    ...\n")
    (tmp_path / "helper.py").write_text("NAMES = ('three',)\n\n\ndef loaded(config):\n    ...\n")
    (tmp_path / "broken_later.py").write_text("import nowhere\n\n\ndef load(config):\n    ...\n")
    monkeypatch.setattr(datasets.__spec__, "submodule_search_locations", [str(tmp_path)])
    assert set(discovery.data_sets()) == {"one", "two", "broken_later"}


def test_one_new_file_of_each_kind_is_a_trial_of_its_own(
    tmp_path: Path, subprocess_environment: dict[str, Any]
) -> None:
    program = [sys.executable, "-m", "tests.support.processes.with_additions", str(tmp_path)]
    ran = subprocess.run(
        program, cwd=ROOT, env=subprocess_environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    result = json.loads((tmp_path / "trial" / "result.json").read_text())
    assert result["metrics"]["fd_corner"] > 0
    assert "content: noise-200" in (tmp_path / "trial" / "config.yaml").read_text()
