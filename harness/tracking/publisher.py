"""Sends a run's journal to MLflow in the background, while the trial writes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from harness.tracking.delivery import Delivery, NotYetKnownError
from harness.tracking.events import JOURNAL_FILE
from harness.tracking.mlflow_client import configure_mlflow, first_line
from harness.tracking.published import is_complete, load_published
from harness.tracking.store import Store

LONGEST_PAUSE = 60.0
"""Seconds between attempts while the store does not answer, at most."""
THREAD_NAME = "mlflow-publisher"


class Publisher:
    """A thread that sends what is new in `folder`'s journal every few seconds.

    Nothing it meets ever reaches the caller but as a notice: while the store does not answer,
    events stay in the journal, the pauses double, and the user is told once, and once more when it
    answers again. `on_notice` is called from the thread.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        on_notice: Callable[[str], None],
        interval: float = 2.0,
    ) -> None:
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
        published = load_published(self._folder, self._store.name)
        return published.run_id if published else None

    def start(self) -> None:
        """Begin to send. Imports MLflow here, since two threads importing at once can clash."""
        configure_mlflow()
        self._thread.start()

    def close(self, timeout: float = 10.0) -> bool:
        """Try a last time to send what is left, for at most `timeout` seconds.

        Returns:
            Whether the store has everything. If not, the user is told, and `publish_pending` sends
            the rest later.
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
        pause = 0.0
        stopping = False
        try:
            while not stopping:
                stopping = self._stop.wait(pause)
                if self._attempt(also_postponed=stopping):
                    pause = self._interval
                else:
                    pause = min(max(2 * pause, self._interval), LONGEST_PAUSE)
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
            self._tell_silent(error)
            return False
        self._tell_back()
        return True

    def _tell_silent(self, error: Exception) -> None:
        if self._silent_since is None:
            self._silent_since = time.monotonic()
            self._on_notice(
                f"MLflow at {self._store.name} does not answer ({first_line(error)}); metrics are "
                f"kept in {self._folder / JOURNAL_FILE} and sent later"
            )

    def _tell_back(self) -> None:
        if self._silent_since is not None:
            minutes = (time.monotonic() - self._silent_since) / 60
            self._silent_since = None
            self._on_notice(
                f"MLflow at {self._store.name} answers again after {minutes:.1f} minutes; "
                "all metrics have been sent"
            )
