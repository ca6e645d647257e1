from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.machine.files import known_kind, shown_names


def test_sound_files_of_arrays_and_weights_are_of_no_other_kind(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    np.save(tmp_path / "a.npy", np.zeros(3))
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pt")
    for path in tmp_path.iterdir():
        assert known_kind(path) is None, path
    assert known_kind(tmp_path / "nowhere") is None
    assert known_kind(tmp_path) is None


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_kinds_are_told_by_content(tmp_path: Path) -> None:
    network = torch.jit.script(torch.nn.Linear(2, 2))
    network.save(tmp_path / "scripted.pt")
    (tmp_path / "stats.pkl").write_bytes(pickle.dumps(np.zeros(3)))
    assert "a TorchScript program" in str(known_kind(tmp_path / "scripted.pt"))
    assert "a pickle of Python objects" in str(known_kind(tmp_path / "stats.pkl"))


def test_many_names_are_counted() -> None:
    assert shown_names(["a", "b"]) == "a, b"
    assert shown_names(list("abcdefg")) == "a, b, c, d, e, ... (7 in all)"
