"""Which names of metrics, parameters and tags MLflow takes (mlflow/utils/validation.py)."""

from __future__ import annotations

import posixpath
import re

LONGEST_NAME = 250
_NAME = re.compile(r"[/\w.\- :]+")


def check_name(name: str) -> None:
    """Refuse what MLflow would refuse as the name of a metric, parameter or tag.

    Raises:
        ValueError: the name has other characters than letters, digits and `_-./: `, is too long,
            or would change if it were read as a path.
    """
    path = posixpath.normpath(name)
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ValueError(
            f"{name!r} is not a name that MLflow takes: 1 to {LONGEST_NAME} letters, digits, "
            "underscores, dashes, dots, slashes, colons and spaces"
        )
    if path != name or path == "." or path.startswith(("..", "/")):
        raise ValueError(f"{name!r} is not a name that MLflow takes: read as a path it is {path!r}")
