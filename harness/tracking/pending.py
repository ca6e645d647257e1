"""What earlier commands left unsent, and what a fresh, emptied or other store lacks."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from filelock import Timeout

from harness.tracking.delivery import Delivery, NotYetKnownError
from harness.tracking.events import JOURNAL_FILE, first_event
from harness.tracking.mlflow_client import first_line
from harness.tracking.published import is_complete, load_published
from harness.tracking.store import Store


def run_id_of(folder: Path, store: Store) -> str | None:
    """The run that the journal in `folder` has in the store, as far as known locally.

    Right after `publish_pending`, which checks it against the store.
    """
    published = load_published(folder, store.name)
    return published.run_id if published else None


def publish_pending(
    runs_dir: Path, store: Store, on_notice: Callable[[str], None], budget: float = 300.0
) -> bool:
    """Send every journal below `runs_dir` that the store lacks, in part or as a whole.

    Journals that a running trial is sending are left to it. Where nothing is missing, this costs
    one query an experiment.

    Args:
        runs_dir: the folder of all outputs; it need not exist.
        store: where to send to.
        on_notice: called with what the user should know.
        budget: seconds after which the rest is left for the next time.

    Returns:
        Whether the store has everything; if not, the user was told.
    """
    folders = find_journals(runs_dir)
    if not folders:
        return True
    try:
        unsent = _unsent(folders, store)
    except Exception as error:
        on_notice(_not_answering(store, error))
        return False
    if len(unsent) > 1:
        on_notice(f"Sending {len(unsent)} runs of earlier commands to MLflow at {store.name}")
    return _publish(unsent, store, on_notice, time.monotonic() + budget)


def wait_published(
    folders: Sequence[Path],
    store: Store,
    on_notice: Callable[[str], None],
    timeout: float = 30.0,
) -> dict[Path, str | None]:
    """Wait until the store has all of these journals, sending those that nobody else sends.

    Returns:
        The run id of each folder, None where the store has not answered.
    """
    deadline = time.monotonic() + timeout
    while True:
        left = [f for f in folders if first_event(f) and not is_complete(f, store.name)]
        if not left or not _publish(left, store, on_notice, deadline):
            break
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return {folder: run_id_of(folder, store) for folder in folders}


def find_journals(runs_dir: Path) -> list[Path]:
    """The folders below `runs_dir` that hold a journal, sorted."""
    found = []
    for folder, subfolders, files in os.walk(runs_dir):
        if JOURNAL_FILE in files:
            found.append(Path(folder))
            subfolders.clear()
    return sorted(found)


def _unsent(folders: Iterable[Path], store: Store) -> list[Path]:
    """Journals not entirely sent, and those whose run is no longer in the store."""
    unsent = []
    sent: dict[str, dict[str, Path]] = defaultdict(dict)
    for folder in folders:
        published = load_published(folder, store.name)
        if published is None or not is_complete(folder, store.name):
            if first_event(folder) is not None:
                unsent.append(folder)
        else:
            sent[published.experiment_id][published.run_id] = folder
    for experiment_id, by_run_id in sent.items():
        gone = by_run_id.keys() - _run_ids(store, experiment_id)
        unsent.extend(by_run_id[run_id] for run_id in gone)
    return sorted(unsent)


def _run_ids(store: Store, experiment_id: str) -> set[str]:
    client = store.client()
    run_ids: set[str] = set()
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        run_ids.update(run.info.run_id for run in page)
        token = page.token
        if not token:
            return run_ids


def _publish(
    folders: Iterable[Path], store: Store, on_notice: Callable[[str], None], deadline: float
) -> bool:
    """Whether the store answered and took everything that no other process is sending."""
    complete = True
    for folder in folders:
        if time.monotonic() > deadline:
            on_notice(f"MLflow at {store.name} is slow; the rest is sent by the next command")
            return False
        delivery = Delivery(folder, store, on_notice)
        try:
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
        f"MLflow at {store.name} does not answer ({first_line(error)}); "
        "what is on disk is sent by a later command"
    )
