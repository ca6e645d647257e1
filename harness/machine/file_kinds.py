"""What a file really is that cannot be read, so that no sound file is called damaged."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

_HEAD = 512
_PICTURE = re.compile(r"\.(png|jpe?g|webp|avif|bmp|gif|tiff?|ppm)$", re.IGNORECASE)
_SHOWN = 5


def shown_names(names: list[str]) -> str:
    """The first few of many names, and how many there are."""
    more = f", ... ({len(names):,} in all)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def known_kind(path: Path) -> str | None:
    """What a file is and what to do with it, in words; None where it is of no kind known here.

    It is looked at only after a reader has refused it: a kind says nothing about damage.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _kind_of_archive(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return None
    if (kind := kind_of_content(head)) is not None:
        return kind
    if path.suffix in (".pkl", ".pickle") or head[:1] == b"\x80":
        return (
            "a pickle of Python objects, which can run any program when it is read: store the "
            "arrays themselves with numpy.savez or safetensors"
        )
    return None


def kind_of_content(head: bytes) -> str | None:
    """What stands in the place of a file of whatever format, by its first bytes."""
    if not head:
        return "an empty file: write or fetch it again"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer and not the file itself: fetch that with `git lfs pull`"
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "a web page and not the file itself: the download failed, fetch it again"
    return None


def _kind_of_archive(names: list[str]) -> str | None:
    if any(name.endswith("/constants.pkl") for name in names):
        return (
            "a TorchScript program and not a file of weights: name the weights themselves, such "
            "as the state dictionary that torch-fidelity or timm publishes"
        )
    if any(_PICTURE.search(name) for name in names):
        return "a zip of image files: unpack it, and name the folder"
    return None
