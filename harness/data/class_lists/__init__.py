"""Lists of classes: the ones that have a name and a version, and those of users.

A line is an id, or an id, a tab and a name; lines that start with # are comments. Labels follow
the order of the lines.
"""

from __future__ import annotations

from pathlib import Path

from harness.config.mistakes import nearest_name
from harness.data.manifest import ManifestClass
from models.errors import UserError

_FOLDER = Path(__file__).parent
IMAGENET = "imagenet-1k/v1"


def class_list_names() -> tuple[str, ...]:
    """The lists that come with the harness, such as `sub-in-100/v1`, sorted."""
    # Slashes are none in the names of files: sub-in-100-v1.txt
    parts = (path.stem.rpartition("-") for path in _FOLDER.glob("*.txt"))
    return tuple(sorted(f"{name}/{version}" for name, _, version in parts))


def read_class_list(name: str) -> tuple[ManifestClass, ...]:
    """A list that comes with the harness, in label order. Raises a UserError if there is none of
    that name."""
    names = class_list_names()
    if name not in names:
        nearest = nearest_name(name, names)
        hint = "" if nearest is None else f" (did you mean {nearest}?)"
        raise UserError(f"there is no class list {name}; choose from {', '.join(names)}{hint}")
    return read_class_file(_FOLDER / f"{name.replace('/', '-')}.txt")


def read_class_file(path: Path) -> tuple[ManifestClass, ...]:
    """A list that somebody wrote, in label order. Raises a UserError if it is missing, is not text,
    is empty or names a class twice."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no file of classes {path}") from None
    except OSError as error:
        raise UserError(f"the file of classes {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8: expected a class id a line") from error
    lines: dict[str, int] = {}
    classes = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        class_id, _, name = (part.strip() for part in line.partition("\t"))
        if not class_id:
            raise UserError(f"{path}:{number}: expected a class id before the tab")
        if class_id in lines:
            raise UserError(
                f"{path}:{number}: class {class_id} stands on line {lines[class_id]} already"
            )
        lines[class_id] = number
        classes.append(ManifestClass(class_id, name or class_id))
    if not classes:
        raise UserError(f"{path} names no class: expected a class id a line")
    return tuple(classes)
