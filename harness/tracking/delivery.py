"""One journal to one store: finds or creates the run, then sends the events in order.

Everything sent can be sent again without harm: MLflow drops a metric equal in key, step, time and
value, and a parameter equal in value; tags and artifacts are replaced. So the offset is saved after
the store has taken an event, and a crash in between costs nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from harness.machine.files import DamagedFileError, read_json, write_json
from harness.machine.mlflow_client import error_code, explain
from harness.tracking import events
from harness.tracking.events import JOURNAL_FILE, PUBLISHED_FILE
from harness.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

LOCK_FILE = ".tracking.lock"
TAG_JOURNAL = "harness.journal"
"""Which journal a run was filled from."""
TAG_NOT_SENT = "harness.not_sent"
"""What of the journal the store refused or the folder lacks, and why."""

# MLflow 3.17, mlflow/utils/validation.py: at most 1000 metrics, 100 parameters and 100 tags in one
# request, and 1000 of all together.
METRICS_AT_ONCE = 800
OTHERS_AT_ONCE = 100
LONGEST_PARAM = 6000
LONGEST_TAG = 8000
_CUT = " ... (cut)"


@dataclass(frozen=True)
class Published:
    """How far one journal has been sent to one store: up to byte `offset`, but for the artifacts at
    the bytes `postponed`, which the store could not take yet."""

    experiment_id: str
    run_id: str
    offset: int
    postponed: tuple[int, ...] = ()


def load_published(folder: Path, store_name: str) -> Published | None:
    """What is known of the journal in `folder` and the store; None where it was never sent, or what
    was noted is unreadable: sending again is harmless."""
    return _load_all(folder).get(store_name)


def save_published(folder: Path, store_name: str, published: Published) -> None:
    """Replace the entry of one store, atomically."""
    entries = {**_load_all(folder), store_name: published}
    plain = {name: asdict(entry) for name, entry in entries.items()}
    write_json(folder / PUBLISHED_FILE, plain, indent=1)


def _load_all(folder: Path) -> dict[str, Published]:
    try:
        return read_json(folder / PUBLISHED_FILE, dict[str, Published])
    except (FileNotFoundError, DamagedFileError):
        return {}


def is_complete(folder: Path, store_name: str) -> bool:
    """Whether everything in the folder's journal was sent to the store. Reads local files only."""
    published = load_published(folder, store_name)
    if published is None or published.postponed:
        return False
    with suppress(FileNotFoundError):
        return published.offset == (folder / JOURNAL_FILE).stat().st_size
    return True


@dataclass
class Batch:
    """Metrics (key, value, time in ms, step), parameters and tags of consecutive events, which
    MLflow takes in few requests."""

    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def take(self, event: events.Event | events.Damaged) -> bool:
        """Whether the event was taken in: not where it is of another kind, or the batch full."""
        if len(self.metrics) >= METRICS_AT_ONCE:
            return False
        match event:
            case events.Metrics(values, step, time):
                self.metrics += [(key, value, time, step) for key, value in values.items()]
            case events.Params(params):
                self.params |= params
            case events.Tags(tags):
                self.tags |= tags
            case _:
                return False
        return True

    def parts(self) -> Iterator[Batch]:
        """The batch cut into batches that each fit into one request."""
        params, tags = list(self.params.items()), list(self.tags.items())
        others = max(len(params), len(tags)) / OTHERS_AT_ONCE
        for part in range(math.ceil(max(len(self.metrics) / METRICS_AT_ONCE, others))):
            first, second = part * METRICS_AT_ONCE, part * OTHERS_AT_ONCE
            yield Batch(
                self.metrics[first : first + METRICS_AT_ONCE],
                dict(params[second : second + OTHERS_AT_ONCE]),
                dict(tags[second : second + OTHERS_AT_ONCE]),
            )

    def singles(self) -> list[tuple[str, Batch]]:
        """Each item in a batch of its own, after what it is called."""
        return [
            *((f"metric {it[0]} of step {it[3]}", Batch([it])) for it in self.metrics),
            *((f"parameter {key}", Batch(params={key: it})) for key, it in self.params.items()),
            *((f"tag {key}", Batch(tags={key: it})) for key, it in self.tags.items()),
        ]

    def entities(
        self, resolve: Callable[[str], str]
    ) -> tuple[list[Metric], list[Param], list[RunTag]]:
        """For `MlflowClient.log_batch`. Over-long values are cut, visibly.

        `resolve` puts run ids in the place of links, in tags; a tag that becomes empty, since it is
        a link to a run that is gone, is left out.
        """
        from mlflow.entities import Metric, Param, RunTag

        tags = {key: resolve(value) for key, value in self.tags.items()}
        return (
            [Metric(*metric) for metric in self.metrics],
            [Param(key, _shortened(value, LONGEST_PARAM)) for key, value in self.params.items()],
            [RunTag(k, _shortened(value, LONGEST_TAG)) for k, value in tags.items() if value],
        )


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - len(_CUT)] + _CUT


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
        """Find the journal's run in the store, or create it; False where no journal has begun."""
        begin = events.first_event(self.folder)
        if begin is not None and self._published is None:
            client = self._open()
            published = load_published(self.folder, self._store.name)
            if published is None or not self._is_alive(published.run_id):
                self._save(self._find_or_create(client, begin))
            else:
                self._published = published
        return begin is not None

    def send(self) -> None:
        """Send all complete lines that are not sent yet."""
        if not self.ensure_run():
            return
        try:
            self._send_events()
        except Exception as error:
            if not _is_refusal(error) or self._is_alive(self._state.run_id):
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
            for offset in self._state.postponed:
                event, _ = next(events.read_events(file, offset), (None, 0))
                if not isinstance(event, events.AnyArtifact) or self._send_artifact(event):
                    rest = tuple(other for other in self._state.postponed if other != offset)
                    self._save(replace(self._state, postponed=rest))

    def _send_events(self) -> None:
        """Send in as few requests as can be, and save how far that came once, at the end.

        Metrics, parameters and tags are held back until a batch of them is full or the run's state
        changes; artifacts do not wait for them.
        """
        batch = Batch()
        with (self.folder / JOURNAL_FILE).open("rb") as file:
            start = self._state.offset
            if os.fstat(file.fileno()).st_size == start:
                return
            # What has been sent must survive a power failure, or the offset would be wrong.
            os.fsync(file.fileno())
            try:
                for event, end in events.read_events(file, start):
                    if isinstance(event, events.AnyArtifact):
                        postponed = self._state.postponed
                        if not self._send_artifact(event) and start not in postponed:
                            self._published = replace(self._state, postponed=(*postponed, start))
                    elif not batch.take(event):
                        self._send_batch(batch, start)
                        batch = Batch()
                        if not batch.take(event):
                            self._send_other(event)
                            self._published = replace(self._state, offset=end)
                    start = end
                self._send_batch(batch, start)
            finally:
                self._save(self._state)

    def _send_batch(self, batch: Batch, end: int) -> None:
        """Send a batch, after which everything before byte `end` has been sent."""
        for part in batch.parts():
            self._send_part(part)
        self._published = replace(self._state, offset=end)

    def _send_part(self, part: Batch, name: str = "") -> None:
        """Send what fits into one request; of what is refused, each item, `name`d, by itself."""
        try:
            self._open().log_batch(self._state.run_id, *part.entities(self._resolve))
        except Exception as error:
            if not _is_refusal(error) or not self._is_alive(self._state.run_id):
                raise
            if name:
                self._give_up(name, explain(error))
                return
            for name, single in part.singles():
                self._send_part(single, name)

    def _send_other(self, event: events.Event | events.Damaged) -> None:
        match event:
            case events.Resume():
                self._open().update_run(self._state.run_id, status="RUNNING")
            case events.End(status, _, time):
                self._open().set_terminated(self._state.run_id, status, time)
            case events.Damaged(at):
                self._give_up(f"the line at byte {at}", "it cannot be read")

    def _send_artifact(self, event: events.AnyArtifact) -> bool:
        """Whether it is settled. Artifacts may go elsewhere than metrics and must not block them.

        Raises:
            Exception: the tracking store itself does not answer.
        """
        run_id, client = self._state.run_id, self._open()
        name = event.path if isinstance(event, events.Artifact) else event.name
        text = self._resolve(event.text) if isinstance(event, events.Text) else ""
        file = (self.folder / name).resolve()
        if not file.is_relative_to(self.folder.resolve()):
            # Else a journal from somebody else could have any file of this machine sent away.
            self._give_up(f"the artifact {name}", "it lies outside the folder of the run")
            return True
        if isinstance(event, events.Artifact) and not file.is_file():
            self._give_up(f"the artifact {name}", "the file is gone")
            return True
        try:
            if isinstance(event, events.Artifact):
                client.log_artifact(run_id, str(self.folder / name), event.folder or None)
            else:
                client.log_text(run_id, text, name)
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
        self._open().set_tag(self._state.run_id, TAG_NOT_SENT, text)
        self._on_notice(f"{self.folder}: {what} is missing in MLflow: {why}")

    def _is_alive(self, run_id: str) -> bool:
        try:
            return bool(self._open().get_run(run_id).info.lifecycle_stage == "active")
        except Exception as error:
            if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def _find_or_create(self, client: MlflowClient, begin: events.Begin) -> Published:
        experiment = self._store.experiment_id(client, begin.experiment)
        found = client.search_runs([experiment], f"tags.`{TAG_JOURNAL}` = '{begin.journal}'")
        tags = {TAG_JOURNAL: begin.journal}
        run = found[0] if found else client.create_run(experiment, begin.time, tags, begin.run_name)
        return Published(experiment, run.info.run_id, 0)

    def _open(self) -> MlflowClient:
        if self._client is None:
            self._client = self._store.client()
        return self._client

    @property
    def _state(self) -> Published:
        """How far all has come; known once `ensure_run` found the run."""
        assert self._published is not None
        return self._published

    def _save(self, published: Published) -> None:
        save_published(self.folder, self._store.name, published)
        self._published = published

    def _resolve(self, text: str) -> str:
        return events.resolve_links(text, self.folder, self._linked_run_id)

    def _linked_run_id(self, folder: Path) -> str:
        """The id of a linked run; empty where its folder has no journal any more.

        Raises:
            NotYetKnownError: another process is about to create that run.
        """
        if events.first_event(folder) is None:
            return ""
        linked = Delivery(folder, self._store, self._on_notice, self._client)
        with suppress(Timeout), linked.lock():
            linked.ensure_run()
        published = load_published(folder, self._store.name)
        if published is None:
            raise NotYetKnownError(f"the run of {folder} is not in MLflow yet")
        return published.run_id


def _is_refusal(error: Exception) -> bool:
    """Whether the store answered that it will never take this."""
    return error_code(error) in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
