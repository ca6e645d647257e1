from __future__ import annotations

import fractions
from pathlib import Path

import pytest
import torch

from harness.evaluation.extractors.weights_file import read_weights
from models.errors import UserError


@pytest.mark.filterwarnings(
    "ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning"
)
def test_what_is_no_file_of_weights_is_called_what_it_is(tmp_path: Path) -> None:
    """And no warning of PyTorch's stands before it: any warning fails a test."""
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "scripted.pth")
    torch.save({"weights": fractions.Fraction(1, 2)}, tmp_path / "objects.pth")
    (tmp_path / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 and no more")
    for name, said in (
        ("scripted.pth", "are a TorchScript program and not a file of weights"),
        ("objects.pth", "a Python object of fractions.Fraction"),
        ("pointer.safetensors", "are a Git LFS pointer"),
        ("broken.pth", "are no file of tensors"),
    ):
        with pytest.raises(UserError, match=said) as refused:
            read_weights(tmp_path / name)
        assert "weights_only" not in str(refused.value) or name == "broken.pth"
        assert "\x1b" not in str(refused.value)
        assert "\n" not in str(refused.value)
