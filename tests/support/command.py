"""The command line, called in the process of a test, which has imported everything already."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from harness.cli.main import main


def output_of(*words: str | Path, store: str | None = None) -> str:
    """What a command prints that ends well.

    Args:
        words: such as "report", "baselines".
        store: the address of the MLflow store, for commands that use one.
    """
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        if store is not None:
            patch.setenv("MLFLOW_TRACKING_URI", store)
        code = main([str(word) for word in words])
    assert code == 0, printed.getvalue()
    return printed.getvalue()
