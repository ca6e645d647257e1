"""One journal to one store: finds or creates the run, then sends the events in order.

Everything sent can be sent again without harm: MLflow drops a metric equal in key, step, time and
value, and a parameter equal in value; tags and artifacts are replaced. So the offset is saved after
the store has taken an event, and a crash in between costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from harness.machine.files import DamagedFileError, read_json, write_json
from harness.machine.mlflow_client import error_code, explain
from harness.tracking.batch import LONGEST_TAG, Batch
from harness.tracking.events import (
    JOURNAL_FILE,
    PUBLISHED_FILE,
    Artifact,
    Begin,
    Damaged,
    End,
    Event,
    Resume,
    Text,
    first_event,
    read_events,
    resolve_links,
)
from harness.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_FILE = ".tracking.lock"
TAG_JOURNAL = "harness.journal"
"""Which journal a run was filled from."""
TAG_NOT_SENT = "harness.not_sent"
"""What of the journal the store refused or the folder lacks, and why."""


@dataclass(frozen=True)
class Published:
    """How far one journal has been sent to one store."""

    experiment_id: str
    run_id: str
    offset: int
    """Bytes of the journal that have been sent."""
    postponed: tuple[int, ...] = ()
    """Offsets of artifacts that the store could not take yet."""


def load_published(folder: Path, store_name: str) -> Published | None:
    """What is known of the journal in `folder` and the store, or None where it was never sent.

    An unreadable file counts as never sent: sending again is harmless.
    """
    entry = _load_all(folder).get(store_name)
    try:
        return Published(**{**entry, "postponed": tuple(entry["postponed"])}) if entry else None
    except (TypeError, KeyError):
        return None


def save_published(folder: Path, store_name: str, published: Published | None) -> None:
    """Replace the entry of one store, atomically; None removes it."""
    entries = _load_all(folder)
    entries.pop(store_name, None)
    if published is not None:
        entries[store_name] = asdict(published)
    write_json(folder / PUBLISHED_FILE, entries, indent=1)


def is_complete(folder: Path, store_name: str) -> bool:
    """Whether everything in the folder's journal was sent to the store. Reads local files only."""
    published = load_published(folder, store_name)
    if published is None or published.postponed:
        return False
    try:
        return published.offset == (folder / JOURNAL_FILE).stat().st_size
    except FileNotFoundError:
        return True


def _load_all(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        entries = read_json(folder / PUBLISHED_FILE)
    except (FileNotFoundError, DamagedFileError):
        return {}
    return entries if isinstance(entries, dict) else {}


class NotYetKnownError(Exception):
    """A linked run has no id in this store yet, but another process is about to create it."""


class Delivery:
    """Sends one folder's journal; hold `lock()` meanwhile, so that no two processes do.

    Any exception from `send` means that the store did not take an event: that and what follows
    stays unsent, and `send` can be called again.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        on_notice: Callable[[str], None],
        client: MlflowClient | None = None,
    ) -> None:
        """`client` is one of the store's that is open already."""
        self.folder = folder
        self._store = store
        self._on_notice = on_notice
        self._client = client
        self._published: Published | None = None
        self._not_sent: list[str] = []

    def lock(self) -> FileLock:
        """The lock on sending this folder's journal; acquiring raises `filelock.Timeout`."""
        return FileLock(self.folder / LOCK_FILE, timeout=0, thread_local=False)

    def ensure_run(self) -> bool:
        """Find the journal's run in the store, or create it.

        Returns:
            False where the journal has not begun.
        """
        begin = first_event(self.folder)
        if begin is None:
            return False
        if self._published is None:
            client = self._open()
            published = load_published(self.folder, self._store.name)
            if published is None or not self._is_alive(published.run_id):
                self._save(self._find_or_create(client, begin))
            else:
                self._published = published
        return True

    def send(self) -> None:
        """Send all complete lines that are not sent yet."""
        if not self.ensure_run():
            return
        try:
            self._send_events()
        except Exception as error:
            if not self._is_refusal(error) or self._is_alive(self._state().run_id):
                raise
            # The run was deleted, or the store emptied: fill a new one from the beginning.
            self._published = None
            self.ensure_run()
            self._send_events()

    def send_postponed(self) -> None:
        """Try once more to store the artifacts that the store could not take before."""
        if not self.ensure_run():
            return
        with (self.folder / JOURNAL_FILE).open("rb") as file:
            for offset in self._state().postponed:
                event, _ = next(read_events(file, offset), (None, 0))
                if not isinstance(event, Artifact | Text) or self._send_artifact(event):
                    rest = tuple(other for other in self._state().postponed if other != offset)
                    self._save(replace(self._state(), postponed=rest))

    def _send_events(self) -> None:
        """Send in as few requests as can be, and save how far that came once, at the end.

        Metrics, parameters and tags are held back until a batch of them is full or the run's state
        changes; artifacts do not wait for them.
        """
        batch = Batch()
        with (self.folder / JOURNAL_FILE).open("rb") as file:
            start = self._state().offset
            if os.fstat(file.fileno()).st_size == start:
                return
            # What has been sent must survive a power failure, or the offset would be wrong.
            os.fsync(file.fileno())
            try:
                for event, end in read_events(file, start):
                    if isinstance(event, Artifact | Text):
                        self._send_or_postpone(event, start)
                    elif not batch.take(event):
                        self._send_batch(batch, start)
                        batch = Batch()
                        if not batch.take(event):
                            self._send_other(event)
                            self._published = replace(self._state(), offset=end)
                    start = end
                self._send_batch(batch, start)
            finally:
                self._save(self._state())

    def _send_batch(self, batch: Batch, end: int) -> None:
        """Send a batch, after which everything before byte `end` has been sent."""
        for part in batch.parts():
            try:
                self._log(part)
            except Exception as error:
                if not self._is_refusal(error) or not self._is_alive(self._state().run_id):
                    raise
                for single in part.singles():
                    self._send_or_give_up(single)
        self._published = replace(self._state(), offset=end)

    def _send_or_give_up(self, single: Batch) -> None:
        try:
            self._log(single)
        except Exception as error:
            if not self._is_refusal(error):
                raise
            self._give_up(single.description(), explain(error))

    def _log(self, batch: Batch) -> None:
        self._open().log_batch(self._state().run_id, *batch.entities(self._resolve))

    def _send_other(self, event: Event | Damaged) -> None:
        run_id = self._state().run_id
        if isinstance(event, Resume):
            self._open().update_run(run_id, status="RUNNING")
        elif isinstance(event, End):
            self._open().set_terminated(run_id, event.status, event.time)
        elif isinstance(event, Damaged):
            self._give_up(f"the line at byte {event.at}", "it cannot be read")

    def _send_or_postpone(self, event: Artifact | Text, start: int) -> None:
        postponed = self._state().postponed
        if not self._send_artifact(event) and start not in postponed:
            self._published = replace(self._state(), postponed=(*postponed, start))

    def _send_artifact(self, event: Artifact | Text) -> bool:
        """Whether it is settled. Artifacts may go elsewhere than metrics and must not block them.

        Raises:
            Exception: the tracking store itself does not answer.
        """
        run_id = self._state().run_id
        name = event.path if isinstance(event, Artifact) else event.name
        text = self._resolve(event.text) if isinstance(event, Text) else ""
        file = (self.folder / name).resolve()
        if not file.is_relative_to(self.folder.resolve()):
            # Else a journal from somebody else could have any file of this machine sent away.
            self._give_up(f"the artifact {name}", "it lies outside the folder of the run")
            return True
        if isinstance(event, Artifact) and not file.is_file():
            self._give_up(f"the artifact {name}", "the file is gone")
            return True
        try:
            if isinstance(event, Artifact):
                self._open().log_artifact(run_id, str(self.folder / name), event.folder or None)
            else:
                self._open().log_text(run_id, text, name)
        except Exception as error:
            if not self._is_alive(run_id):
                raise
            self._on_notice(
                f"MLflow at {self._store.name} does not take the artifact {name} of {self.folder} "
                f"({explain(error)}); it is sent later"
            )
            return False
        return True

    def _give_up(self, what: str, why: str) -> None:
        self._not_sent.append(f"{what}: {why}")
        text = "\n".join(self._not_sent)[:LONGEST_TAG]
        self._open().set_tag(self._state().run_id, TAG_NOT_SENT, text)
        self._on_notice(f"{self.folder}: {what} is missing in MLflow: {why}")

    def _is_refusal(self, error: Exception) -> bool:
        """Whether the store answered that it will never take this."""
        return error_code(error) in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")

    def _is_alive(self, run_id: str) -> bool:
        try:
            return bool(self._open().get_run(run_id).info.lifecycle_stage == "active")
        except Exception as error:
            if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def _find_or_create(self, client: MlflowClient, begin: Begin) -> Published:
        experiment = self._store.experiment_id(client, begin.experiment)
        found = client.search_runs([experiment], f"tags.`{TAG_JOURNAL}` = '{begin.journal}'")
        if found:
            return Published(experiment, found[0].info.run_id, 0)
        tags = {TAG_JOURNAL: begin.journal}
        run = client.create_run(experiment, begin.time, tags, begin.run_name)
        return Published(experiment, run.info.run_id, 0)

    def _open(self) -> MlflowClient:
        if self._client is None:
            self._client = self._store.client()
        return self._client

    def _state(self) -> Published:
        if self._published is None:
            raise RuntimeError("ensure_run() comes first")
        return self._published

    def _save(self, published: Published) -> None:
        save_published(self.folder, self._store.name, published)
        self._published = published

    def _resolve(self, text: str) -> str:
        return resolve_links(text, self.folder, self._linked_run_id)

    def _linked_run_id(self, folder: Path) -> str:
        """The id of a linked run; empty where its folder has no journal any more.

        Raises:
            NotYetKnownError: another process is about to create that run.
        """
        if first_event(folder) is None:
            return ""
        linked = Delivery(folder, self._store, self._on_notice, self._client)
        try:
            with linked.lock():
                linked.ensure_run()
        except Timeout:
            pass
        published = load_published(folder, self._store.name)
        if published is None:
            raise NotYetKnownError(f"the run of {folder} is not in MLflow yet")
        return published.run_id
