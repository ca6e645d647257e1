"""Where a study is kept: a file in the search's folder, or a database.

The file is Optuna's journal. Its lock is a file made with O_CREAT | O_EXCL (`JournalFileOpenLock`),
which is atomic on local disks and on NFS from version 3 on and, unlike the other lock that Optuna
has, needs no symbolic links. A process killed while it holds the lock leaves that file; the others
take it over after 30 seconds.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial

from harness.tracking.store import first_line, without_credentials
from models.errors import UserError

STUDY_FILE = "study.log"
HEARTBEAT_SECONDS = 30
GRACE_SECONDS = 150
"""A trial in a database whose worker gave no sign of life for so long is given to another one."""

StaleTrialListener = Callable[[optuna.Study, FrozenTrial], None]


def open_storage(
    url: str | None, folder: Path, on_stale: StaleTrialListener, *, create: bool
) -> BaseStorage:
    """Open a storage.

    Args:
        url: of a database; None for the file in the folder.
        folder: of the search.
        on_stale: called with a trial that a database has failed for want of heartbeats.
        create: make what is missing, and mend a file that a crash cut off. One process at a time:
            several that create the tables of a fresh database break it.

    Raises:
        UserError: the file is damaged, or the database cannot be used.
    """
    if url is None:
        return _open_file(folder / STUDY_FILE, mend=create)
    # Before SQLAlchemy, whose message for it speaks of a string from an argument.
    if "://" not in url:
        raise UserError(
            f"--storage {url}: expected the URL of a database, such as "
            "sqlite:////absolute/path/search.db or postgresql://user@host/name"
        )
    waiting = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return RDBStorage(
                url,
                engine_kwargs=waiting,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=on_stale,
                skip_table_creation=not create,
            )
    except Exception as error:
        raise UserError(
            f"--storage {without_credentials(url)} cannot be used: {first_line(error)}"
        ) from error


def _open_file(path: Path, *, mend: bool) -> JournalStorage:
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileOpenLock(str(path))
    if mend:
        _cut_off_torn_line(path, lock)
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (ValueError, KeyError, StorageInternalError) as error:
        raise UserError(
            f"{path} is damaged ({first_line(error)}): restore it, or move it away to begin the "
            "search anew; finished trainings are reused"
        ) from error


def _cut_off_torn_line(path: Path, lock: JournalFileOpenLock) -> None:
    """A line without an end, after a full disk or a power failure, would be glued to the next."""
    if not path.exists():
        return
    lock.acquire()
    try:
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)
    finally:
        lock.release()
