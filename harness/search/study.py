"""The study of a search, which several processes share: where it is kept, who takes its next trial,
and how trials of dead workers are given back.

A study is kept in a database, or in a file in the search's folder, Optuna's journal. Its lock is a
file made with O_CREAT | O_EXCL (`JournalFileOpenLock`), which is atomic on local disks and on NFS
from version 3 on and needs no symbolic links. A process killed while it holds that lock leaves the
file; the others take it over after 30 seconds.

Trials are claimed under a lock file, so that a study gets exactly as many trials as it shall have.
A worker holds another lock for as long as it runs a trial, and the kernel frees it however the
worker ends: a running trial whose lock is free has no worker any more. It is failed and its point
put in the queue, where it becomes a new trial of Optuna's; its trainings go on from their
checkpoints. A database also has heartbeats, for workers whose folder is not this one.

Optuna's own `RetryFailedTrialCallback` and `MaxTrialsCallback` see a death in a database alone and
after a grace period, count an interruption as a failed try, and stop a study only after it has too
many trials.
"""

from __future__ import annotations

import os
import socket
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from harness.machine.mlflow_client import explain, without_credentials
from harness.search.config import SearchSpec
from models.errors import UserError

DEFINITION = "definition"
"""Of the study: all that makes its trials comparable."""

WORKER = "worker"
"""Of a trial, as all that follow: host and process that run or ran it."""
MEMBERS = "trials"
"""JSON of its seeds and the folders of their trainings, below the runs folder."""
SCORES = "scores"
"""JSON of its seeds and their values."""
REASON = "reason"
"""Why it failed. A failed one without it lost its worker."""
AGAIN_OF = "again_of"
"""The numbers of the trials that it takes the place of."""
CRASHES = "crashes"
"""How many workers died at its point before."""
MOST_CRASHES = 3
"""A point whose worker died so often is not tried again."""

STUDY_FILE = "study.log"
HEARTBEAT_SECONDS = 30
GRACE_SECONDS = 150
"""A trial in a database whose worker gave no sign of life for so long is given to another one."""
_CLAIM_LOCK = ".claim.lock"
_RUNNING = "running"


def prepare_study(spec: SearchSpec) -> optuna.Study:
    """Open the study, which is made where it is missing, with the base configuration first.

    Raises:
        UserError: the study was begun with another space, objective or base, or its storage cannot
            be used.
    """
    spec.path.mkdir(parents=True, exist_ok=True)
    with _claiming(spec):
        study = optuna.create_study(
            storage=_open_storage(spec, create=True),
            study_name=spec.study,
            direction="maximize" if spec.objective.maximize else "minimize",
            load_if_exists=True,
        )
        begun_with = study.user_attrs.get(DEFINITION)
        if begun_with is None:
            if spec.default is not None and not study.get_trials(deepcopy=False):
                study.enqueue_trial(spec.default)
            study.set_user_attr(DEFINITION, spec.definition)
        elif begun_with != spec.definition:
            changed = [key for key, value in spec.definition.items() if begun_with[key] != value]
            raise UserError(
                f"search {spec.name} at {spec.scale} was begun with another "
                f"{' and '.join(changed)}, so its trials would not compare: undo the change, or "
                "give the file another name, or take another --runs-dir or --storage"
            )
    return study


def _open_storage(spec: SearchSpec, *, create: bool) -> BaseStorage:
    """Open the storage. To `create` makes what is missing, and mends a file that a crash cut off:
    for one process at a time, since several that make the tables of a fresh database break it.

    Raises:
        UserError: the file is damaged, or the database cannot be used.
    """
    url = spec.storage
    if url is None:
        return _open_file(spec.path.absolute() / STUDY_FILE, mend=create)
    # Before SQLAlchemy, whose message for it speaks of a string from an argument.
    if "://" not in url:
        raise UserError(
            f"--storage {without_credentials(url)}: expected the URL of a database, such as "
            "sqlite:////absolute/path/search.db or postgresql://user@host/name"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return RDBStorage(
                url,
                {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=_requeue_crashed,
                skip_table_creation=not create,
            )
    except Exception as error:
        raise UserError(
            f"--storage {without_credentials(url)} cannot be used: {explain(error)}"
        ) from error


def _open_file(path: Path, *, mend: bool) -> JournalStorage:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileOpenLock(str(path))
    if mend and path.exists():
        lock.acquire()
        try:
            # A line without an end, after a full disk or a power failure, would be glued to the
            # next.
            content = path.read_bytes()
            if not content.endswith(b"\n"):
                os.truncate(path, content.rfind(b"\n") + 1)
        finally:
            lock.release()
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (ValueError, KeyError, StorageInternalError) as error:
        raise UserError(
            f"{path} is damaged ({explain(error)}): restore it, or move it away to begin the "
            "search anew; finished trainings are reused"
        ) from error


@contextmanager
def claimed_trial(spec: SearchSpec) -> Iterator[tuple[optuna.Study, optuna.Trial] | None]:
    """The next trial, for the length of the context; None where all there shall be are taken.

    Who leaves the context without having told the study the trial's end gives it back.
    """
    with _claiming(spec):
        storage = _open_storage(spec, create=False)
        every, last = spec.base.train.validate_every, spec.last_step
        pruner = spec.pruner.build(validate_every=every, last_step=last)
        study = optuna.load_study(study_name=spec.study, storage=storage, pruner=pruner)
        _give_back_dead(study, spec)
        trials = study.get_trials(deepcopy=False)
        claimed = None
        if to_begin(trials, spec.trials):
            study.sampler = spec.sampler.build(len(trials))
            with warnings.catch_warnings():
                # That heartbeats are for Optuna's own loop: here `_heartbeats` sends them.
                warnings.simplefilter("ignore", UserWarning)
                claimed = study.ask(spec.distributions())
            lock = _running_lock(spec, claimed.number)
            lock.acquire(timeout=0)
            claimed.set_user_attr(WORKER, {"host": socket.gethostname(), "pid": os.getpid()})
    if claimed is None:
        yield None
        return
    try:
        with _heartbeats(storage, spec.study, claimed.number):
            yield study, claimed
    except BaseException:
        _give_back(study, claimed.number, crashed=False)
        raise
    finally:
        lock.release()


def to_begin(trials: Iterable[FrozenTrial], wanted: int) -> int:
    """How many trials can still be begun: those that wait, or are not there yet."""
    begun = sum(trial.state != TrialState.WAITING for trial in current(trials))
    return max(wanted - begun, 0)


def current(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """All trials but those that another one took the place of."""
    trials = list(trials)
    replaced = {number for trial in trials for number in trial.user_attrs.get(AGAIN_OF, ())}
    return [trial for trial in trials if trial.number not in replaced]


def still_running(spec: SearchSpec, study: optuna.Study) -> list[FrozenTrial]:
    """The trials that run now, those of dead workers having been given back."""
    with _claiming(spec):
        _give_back_dead(study, spec)
        return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _give_back_dead(study: optuna.Study, spec: SearchSpec) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        lock = _running_lock(spec, trial.number)
        if spec.storage is not None and not Path(lock.lock_file).exists():
            continue  # its worker has another folder; the heartbeats tell whether it lives
        with suppress(Timeout), lock.acquire(timeout=0):
            _give_back(study, trial.number, crashed=True)


def _give_back(study: optuna.Study, number: int, *, crashed: bool) -> None:
    """Fail a trial that has not ended, with its point in the queue before."""
    trial = study.get_trials(deepcopy=False)[number]
    if trial.state == TrialState.RUNNING:
        _requeue(study, trial, crashed=crashed)
        study.tell(number, state=TrialState.FAIL, skip_if_finished=True)


def _requeue_crashed(study: optuna.Study, trial: FrozenTrial) -> None:
    _requeue(study, trial, crashed=True)


def _requeue(study: optuna.Study, trial: FrozenTrial, *, crashed: bool) -> None:
    """Put a trial's point in the queue, unless it is there or its worker died there too often."""
    others = study.get_trials(deepcopy=False)
    crashes = trial.user_attrs.get(CRASHES, 0) + crashed
    is_there = any(trial.number in other.user_attrs.get(AGAIN_OF, ()) for other in others)
    if is_there or crashes >= MOST_CRASHES:
        return
    again_of = [*trial.user_attrs.get(AGAIN_OF, ()), trial.number]
    study.add_trial(
        create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            system_attrs=trial.system_attrs,
            user_attrs={AGAIN_OF: again_of, CRASHES: crashes},
        )
    )


def _claiming(spec: SearchSpec) -> FileLock:
    return FileLock(spec.path / _CLAIM_LOCK)


def _running_lock(spec: SearchSpec, number: int) -> FileLock:
    return FileLock(spec.path / _RUNNING / f"{number}.lock")


@contextmanager
def _heartbeats(storage: BaseStorage, study: str, number: int) -> Iterator[None]:
    """Signs of life to a database, for the length of the context; a file needs none."""
    if not isinstance(storage, RDBStorage):
        yield
        return
    study_id = storage.get_study_id_from_name(study)
    trial = storage.get_trial_id_from_study_id_trial_number(study_id, number)
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            with suppress(Exception):  # the next one may get through
                storage.record_heartbeat(trial)

    storage.record_heartbeat(trial)
    thread = threading.Thread(target=beat, name="search-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
