"""Sends journals to MLflow: one while its trial writes it, and what earlier commands left unsent;
and finds them on the disk.

A fresh, emptied or other store lacks all journals, and is filled in the same way.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from harness.machine.environment import ROOT
from harness.machine.mlflow_client import configure_mlflow, explain
from harness.tracking.delivery import Delivery, NotYetKnownError, is_complete, load_published
from harness.tracking.events import JOURNAL_FILE, first_event
from harness.tracking.store import Store, open_store
from harness.vocabulary.names import ARTIFACT_CONFIG
from models.errors import UserError

LONGEST_PAUSE = 60.0
"""Seconds between attempts while the store does not answer, at most."""
PROGRESS_SECONDS = 15.0
"""How often a person is told how far it is with the runs of earlier commands."""
THREAD_NAME = "mlflow-publisher"


class Publisher:
    """A thread that sends what is new in `folder`'s journal every few seconds.

    Nothing it meets ever reaches the caller but as a notice: while the store does not answer,
    events stay in the journal, the pauses double, and the user is told once, and once more when it
    answers again. `on_notice` is called from the thread.
    """

    def __init__(
        self, folder: Path, store: Store, on_notice: Callable[[str], None], interval: float = 2.0
    ) -> None:
        """`interval` is in seconds."""
        self._folder = folder
        self._store = store
        self._on_notice = on_notice
        self._interval = interval
        self._delivery = Delivery(folder, store, on_notice)
        self._lock: FileLock | None = None
        self._silent_since: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    @property
    def run_id(self) -> str | None:
        """The run's id in the store, or None until the store has one."""
        return run_id_of(self._folder, self._store)

    def start(self) -> None:
        """Begin to send. Imports MLflow here, since two threads importing at once can clash."""
        configure_mlflow()
        self._thread.start()

    def close(self, timeout: float = 10.0) -> bool:
        """Try a last time to send what is left, for at most `timeout` seconds.

        Returns:
            Whether the store has everything. If not, the user is told, and the rest is sent later.
        """
        self._stop.set()
        self._thread.join(timeout)
        complete = is_complete(self._folder, self._store.name)
        if not complete and self._silent_since is None:
            self._on_notice(
                f"Not all of {self._folder / JOURNAL_FILE} has reached MLflow at "
                f"{self._store.name} yet; the rest is sent later"
            )
        return complete

    def _run(self) -> None:
        pause, stopping = 0.0, False
        try:
            while not stopping:
                stopping = self._stop.wait(pause)
                answered = self._attempt(also_postponed=stopping)
                longer = min(max(2 * pause, self._interval), LONGEST_PAUSE)
                pause = self._interval if answered else longer
        finally:
            if self._lock is not None:
                self._lock.release()

    def _attempt(self, also_postponed: bool) -> bool:
        """Send what is new; whether the store answered."""
        try:
            if self._lock is None:
                lock = self._delivery.lock()
                lock.acquire()
                self._lock = lock
            self._delivery.send()
            if also_postponed:
                self._delivery.send_postponed()
        except (Timeout, NotYetKnownError):
            # Another process sends this journal, or creates a linked run: look again soon.
            return True
        except Exception as error:
            # Tracking must never end a training: whatever went wrong, the journal has it all.
            if self._silent_since is None:
                self._silent_since = time.monotonic()
                self._on_notice(
                    f"MLflow at {self._store.name} does not answer ({explain(error)}); metrics are "
                    f"kept in {self._folder / JOURNAL_FILE} and sent later"
                )
            return False
        if self._silent_since is not None:
            minutes = (time.monotonic() - self._silent_since) / 60
            self._silent_since = None
            self._on_notice(
                f"MLflow at {self._store.name} answers again after {minutes:.1f} minutes; "
                "all metrics have been sent"
            )
        return True


def publish_pending(
    runs_dir: Path, store: Store, on_notice: Callable[[str], None], budget: float = 300.0
) -> bool:
    """Send every journal below `runs_dir`, if it is there, that the store lacks in part or whole.

    Journals that a running trial is sending are left to it. Where nothing is missing, this costs
    one query an experiment. After `budget` seconds the rest is left for the next time.

    Returns:
        Whether the store has everything; if not, the user was told.
    """
    try:
        unsent = _unsent(find_journals(runs_dir), store)
    except Exception as error:
        on_notice(_not_answering(store, error))
        return False
    if len(unsent) > 1:
        on_notice(f"Sending {len(unsent)} runs of earlier commands to MLflow at {store.name}")
    return _publish(unsent, store, on_notice, time.monotonic() + budget)


def wait_published(
    folders: Sequence[Path], store: Store, on_notice: Callable[[str], None], timeout: float = 30.0
) -> dict[Path, str | None]:
    """Wait until the store has all of these journals, sending those that nobody else sends; the run
    id of each folder, None where the store has not answered."""
    deadline = time.monotonic() + timeout
    while left := [f for f in folders if first_event(f) and not is_complete(f, store.name)]:
        if not _publish(left, store, on_notice, deadline) or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return {folder: run_id_of(folder, store) for folder in folders}


def _unsent(folders: Iterable[Path], store: Store) -> list[Path]:
    """Journals not entirely sent, and those whose run is no longer in the store."""
    unsent = []
    sent: dict[str, dict[str, Path]] = defaultdict(dict)
    for folder in folders:
        published = load_published(folder, store.name)
        if published is not None and is_complete(folder, store.name):
            sent[published.experiment_id][published.run_id] = folder
        elif first_event(folder) is not None:
            unsent.append(folder)
    for experiment_id, by_run_id in sent.items():
        gone = by_run_id.keys() - store.active_run_ids(experiment_id)
        unsent.extend(by_run_id[run_id] for run_id in gone)
    return sorted(unsent)


def _publish(
    folders: Sequence[Path], store: Store, on_notice: Callable[[str], None], deadline: float
) -> bool:
    """Whether the store answered and took everything that no other process is sending."""
    complete, client, told = True, None, time.monotonic()
    for index, folder in enumerate(folders):
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            on_notice(f"{index} of {len(folders)} runs have been sent to MLflow")
        if time.monotonic() > deadline:
            on_notice(f"MLflow at {store.name} is slow; the rest is sent by the next command")
            return False
        try:
            client = client or store.client()
            delivery = Delivery(folder, store, on_notice, client)
            with delivery.lock():
                delivery.send_postponed()
                delivery.send()
        except (Timeout, NotYetKnownError):
            continue
        except Exception as error:
            on_notice(_not_answering(store, error))
            return False
        complete = complete and is_complete(folder, store.name)
    return complete


def _not_answering(store: Store, error: Exception) -> str:
    return (
        f"MLflow at {store.name} does not answer ({explain(error)}); "
        "what is on disk is sent by a later command"
    )


def find_journals(runs_dir: Path) -> list[Path]:
    """The folders below `runs_dir` that hold a journal, sorted."""
    found = []
    for folder, subfolders, files in os.walk(runs_dir):
        if JOURNAL_FILE in files:
            found.append(Path(folder))
            subfolders.clear()
    return sorted(found)


def run_id_of(folder: Path, store: Store) -> str | None:
    """The run that the journal in `folder` has in the store, as far as known locally, which
    `publish_pending` checks against the store."""
    published = load_published(folder, store.name)
    return published.run_id if published else None


def find_trial(run: str, runs_dir: Path) -> Path:
    """The folder of a trial, from whatever a person names it by.

    Raises:
        UserError: neither a trial's folder nor a run that was made here bears that name.
    """
    shape = f"{runs_dir}/SCALE/VARIANT/seedN-HASH"
    for folder in (Path(run), runs_dir / run):
        if folder.is_dir():
            if (folder / ARTIFACT_CONFIG).is_file():
                return folder.resolve()
            raise UserError(
                f"{folder} is not the folder of a trial, since it holds no {ARTIFACT_CONFIG}; "
                f"a trial's is {shape}"
            )
    store = open_store(ROOT)
    for folder in find_journals(runs_dir):
        if run_id_of(folder, store) == run:
            if (folder / ARTIFACT_CONFIG).is_file():
                return folder.resolve()
            raise UserError(f"MLflow run {run} is not a trial's, but that of {folder}")
    raise UserError(
        f"{run} is neither a trial's folder ({shape}) nor the MLflow run id of a trial in "
        f"{runs_dir}"
    )
