"""Files that are either whole or not there, and mistakes about files that the user can mend.

Every file is written beside its place and renamed, so a reader sees the old one or the whole new
one. A full disk, a damaged file, one that is something else than was asked for, or a folder that
cannot be written to is told in one line.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, overload

from models.errors import UserError, error_chain, one_line

Record = TypeVar("Record")

_UMASK = os.umask(0)
"""Which permissions new files lack; read while the process has one thread, since asking changes it
for an instant."""
os.umask(_UMASK)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED_TYPE = re.compile(r"GLOBAL (?:\x1b\[[\d;]*m)?([\w.]+)")
"""In the words of torch.load, which may colour the type's name."""
_PICTURE = re.compile(r"\.(png|jpe?g|webp|avif|bmp|gif|tiff?|ppm)$", re.IGNORECASE)
_SHOWN_NAMES = 5


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block ends without error,
    flushed to the disk first. The suffix is kept, for writers that look at it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix or ".tmp"
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    write_bytes(path, text.encode())


class DamagedFileError(UserError):
    """A file does not hold what this program writes there; the message names the file."""


def write_json(path: Path, content: Any, *, indent: int | None = None) -> None:
    """Write a value, or the fields of a dataclass, as a JSON file, atomically. Raises TypeError or
    ValueError where JSON cannot hold it."""
    write_text(path, json.dumps(content, indent=indent, default=dataclasses.asdict) + "\n")


@overload
def read_json(path: Path) -> Any: ...


@overload
def read_json(path: Path, record: type[Record], *, remedy: str = ...) -> Record: ...


def read_json(
    path: Path,
    record: Any = None,
    *,
    remedy: str = "restore it from a copy, or remove it and repeat the command",
) -> Any:
    """Read what `write_json` wrote.

    A dataclass as `record` names the fields that were written, of which those with a default may be
    absent; another type is what the value must have; None takes any JSON.

    Raises:
        OSError: there is no such file, or it cannot be read.
        DamagedFileError: it is no JSON, or of other fields or types than `record`. The message says
            that the user can do `remedy`.
    """
    try:
        found = json.loads(path.read_bytes())
        return found if record is None else _checked(found, record)
    except (ValueError, RecursionError) as error:
        # UnicodeDecodeError, JSONDecodeError and pydantic's ValidationError are ValueErrors.
        raise DamagedFileError(f"{path} is damaged ({_why(error)}): {remedy}") from error


def read_sound_json(path: Path, record: type[Record]) -> Record | None:
    """Read what `write_json` wrote; None where it is missing or damaged."""
    try:
        return read_json(path, record)
    except (OSError, DamagedFileError):
        return None


def _checked(found: Any, record: Any) -> Any:
    from pydantic import TypeAdapter

    if dataclasses.is_dataclass(record) and isinstance(found, dict):
        unknown = found.keys() - {each.name for each in dataclasses.fields(record)}
        if unknown:
            raise ValueError(f"unknown field {min(unknown)!r}")
    return TypeAdapter(record).validate_python(found)


def _why(error: Exception) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return one_line(error, most=120)
    first = error.errors(include_url=False)[0]
    field = ".".join(map(str, first["loc"]))
    return f"{field}: {first['msg']}" if field else str(first["msg"])


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove_leftovers(folder: Path, stem: str) -> None:
    """Remove what processes left behind that were killed while they wrote files of this stem, which
    may hold wildcards. Nobody else may be writing them now."""
    for leftover in folder.glob(f".{stem}-????????.*"):
        leftover.unlink(missing_ok=True)


@contextmanager
def full_disk_as_user_error(what: str) -> Iterator[None]:
    """Context in which files are written; `what` names them and where they are.

    Raises:
        UserError: no space is left, or the user's quota is used up. Files are written whole or not
            at all, so nothing that was saved before is lost.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not _is_full_disk(error):
            raise
        raise UserError(
            f"no space is left on the disk for {what}: free some and repeat the command, which "
            "goes on from what was saved before"
        ) from error


def _is_full_disk(error: BaseException) -> bool:
    """Also where a library met it on the way to another error, or tells it in a type of its own:
    torch closes its archive, which fails again; safetensors has the system's words alone."""
    words = [os.strerror(number) for number in _FULL]
    return any(
        (isinstance(each, OSError) and each.errno in _FULL)
        or any(word in str(each) for word in words)
        for each in error_chain(error)
    )


def given_path(text: str, what: str) -> Path:
    """A path as somebody wrote it, with `~` for a home; whether something is there or not.

    Raises:
        UserError: it cannot be looked at: it is too long, an unknown user's home, or lies in a
            folder without permission; `what` names it, such as the key that holds it.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:
        raise UserError(f"{what} names {text}, which cannot be looked at ({error})") from error
    return path


def check_folder(folder: Path, option: str) -> None:
    """See that files can be written to a folder, which need not be there; it is left as it was.

    Raises:
        UserError: it cannot be made, or not be written to; `option` of the command line named it.
    """
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        _write_something(folder)
        for path in made:
            # Another command may have begun to use it.
            with suppress(OSError):
                path.rmdir()
    except OSError as error:
        raise UserError(
            f"{option} is {folder}, where nothing can be written ({error.strerror}): name a folder "
            "that can be written to, or one that can be made"
        ) from error


def check_writable(path: Path) -> None:
    """See that a file can be written to a place, whose folder is made; a UserError where not."""
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder, but a file is to be written there")
        _write_something(path.parent)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error}): name a file in a folder that can be written to"
        ) from error


def _write_something(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-"):
        pass


def shown_names(names: list[str]) -> str:
    """The first few of many names, and how many there are."""
    more = f", ... ({len(names):,} in all)" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more


def known_kind(path: Path) -> str | None:
    """What a file is that a reader has refused, and what to do with it, in words; None where it is
    of no kind known here."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
            if any(name.endswith("/constants.pkl") for name in names):
                return (
                    "a TorchScript program and not a file of weights: name the weights themselves, "
                    "such as the state dictionary that torch-fidelity or timm publishes"
                )
            pictures = any(_PICTURE.search(name) for name in names)
            return "a zip of image files: unpack it, and name the folder" if pictures else None
    except (OSError, zipfile.BadZipFile):
        return None
    kind = kind_of_content(head)
    if kind is None and (path.suffix in (".pkl", ".pickle") or head[:1] == b"\x80"):
        return (
            "a pickle of Python objects, which can run any program when it is read: store the "
            "arrays themselves with numpy.savez or safetensors"
        )
    return kind


def refused_object(error: BaseException) -> str | None:
    """What `torch.load(weights_only=True)` refused to make, in words; None where its error names
    nothing. Its own advice, to read the file with all that is in it, is none to pass on."""
    refused = _REFUSED_TYPE.search(str(error))
    if refused is None:
        return None
    return f"a Python object of {refused[1]}, which can run any program when it is read"


def kind_of_content(head: bytes) -> str | None:
    """What stands in the place of a file of whatever format, by its first bytes."""
    if not head:
        return "an empty file: write or fetch it again"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer and not the file itself: fetch that with `git lfs pull`"
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "a web page and not the file itself: the download failed, fetch it again"
    return None
