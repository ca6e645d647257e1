from __future__ import annotations

import pytest

from harness.vocabulary.names import check_name

NAMES = [
    "train_loss",
    "fd_efficientnet_lite0",
    "harness.non_finite.x",
    "a/b",
    "a:b c-d",
    "größe",
    "FD↓",
    "fd@10",
    "a,b",
    "a\n",
    "",
    "/a",
    "a//b",
    "a/../b",
    "..",
    ".",
    "a/",
    "x" * 250,
    "x" * 251,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_refused_exactly_where_mlflow_refuses_them(name: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_param

    try:
        _validate_param(name, "1")
        taken = True
    except MlflowException:
        taken = False
    # MLflow lets an empty name and a trailing newline pass; a database or URL then trips over it.
    if name in ("", "a\n"):
        taken = False
    if taken:
        check_name(name)
    else:
        with pytest.raises(ValueError, match="MLflow"):
            check_name(name)
