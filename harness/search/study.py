"""Taking the next trial of a study, by one process at a time, and giving back those of the dead.

Claims are made under a lock file, so that a study gets exactly as many trials as it shall have. A
worker holds another lock for as long as it runs a trial, and the kernel frees it however the worker
ends: a running trial whose lock is free has no worker any more. It is failed and, with the same
point, put in the queue, where it becomes a new trial of Optuna's; its trainings go on from their
checkpoints. A database also has heartbeats, for workers whose folder is not this one.
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
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from harness.search.attributes import AGAIN_OF, CRASHES, DEFINITION, WORKER
from harness.search.spec import SearchOrder
from harness.search.storage import HEARTBEAT_SECONDS, open_storage
from harness.search.strategy import build_pruner, build_sampler
from models.errors import UserError

MOST_CRASHES = 3
"""A point whose worker died so often is not tried again."""
_CLAIM_LOCK = ".claim.lock"
_RUNNING = "running"


def prepare_study(order: SearchOrder) -> optuna.Study:
    """Open the study, which is made where it is missing, with the base configuration first.

    Raises:
        UserError: the study was begun with another space, objective or base, or its storage cannot
            be used.
    """
    order.path.mkdir(parents=True, exist_ok=True)
    with _claiming(order):
        storage = open_storage(order.storage, order.path, requeue_crashed, create=True)
        study = optuna.create_study(
            storage=storage,
            study_name=order.study,
            direction="maximize" if order.maximize else "minimize",
            load_if_exists=True,
        )
        begun_with = study.user_attrs.get(DEFINITION)
        if begun_with is None:
            if order.default is not None and not study.get_trials(deepcopy=False):
                study.enqueue_trial(order.default)
            study.set_user_attr(DEFINITION, order.definition)
        elif begun_with != order.definition:
            changed = [key for key, value in order.definition.items() if begun_with[key] != value]
            raise UserError(
                f"search {order.name} at {order.scale} was begun with another "
                f"{' and '.join(changed)}, so its trials would not compare: undo the change, or "
                "give the file another name, or take another --runs-dir or --storage"
            )
    return study


@contextmanager
def claimed_trial(order: SearchOrder) -> Iterator[tuple[optuna.Study, optuna.Trial] | None]:
    """The next trial, for the length of the context; None where all there shall be are taken.

    Who leaves the context without having told the study the trial's end gives it back.
    """
    with _claiming(order):
        storage = open_storage(order.storage, order.path, requeue_crashed, create=False)
        pruner = build_pruner(
            order.pruner_config(), validate_every=order.validate_every, last_step=order.last_step
        )
        study = optuna.load_study(study_name=order.study, storage=storage, pruner=pruner)
        _give_back_dead(study, order)
        trials = study.get_trials(deepcopy=False)
        if to_begin(trials, order.trials) == 0:
            claimed = None
        else:
            study.sampler = build_sampler(order.sampler_config(), len(trials))
            with warnings.catch_warnings():
                # That heartbeats are for Optuna's own loop: here `_heartbeats` sends them.
                warnings.simplefilter("ignore", UserWarning)
                claimed = study.ask(dict(order.distributions()))
            lock = _running_lock(order.path, claimed.number)
            lock.acquire(timeout=0)
            claimed.set_user_attr(WORKER, {"host": socket.gethostname(), "pid": os.getpid()})
    if claimed is None:
        yield None
        return
    try:
        with _heartbeats(storage, order.study, claimed.number):
            yield study, claimed
    except BaseException:
        _give_back(study, claimed.number, crashed=False)
        raise
    finally:
        lock.release()


def to_begin(trials: Iterable[FrozenTrial], wanted: int) -> int:
    """How many trials can still be begun: those that wait, or are not there yet."""
    counted = [trial for trial in current(trials) if trial.state != TrialState.WAITING]
    return max(wanted - len(counted), 0)


def current(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """All trials but those that another one took the place of."""
    trials = list(trials)
    replaced = {number for trial in trials for number in trial.user_attrs.get(AGAIN_OF, ())}
    return [trial for trial in trials if trial.number not in replaced]


def still_running(order: SearchOrder, study: optuna.Study) -> list[FrozenTrial]:
    """The trials that run now, those of dead workers having been given back."""
    with _claiming(order):
        _give_back_dead(study, order)
        return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def requeue_crashed(study: optuna.Study, trial: FrozenTrial) -> None:
    """Put the point of a trial whose worker died in the queue, unless that happened too often."""
    _requeue(study, trial, crashed=True)


def _give_back_dead(study: optuna.Study, order: SearchOrder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        lock = _running_lock(order.path, trial.number)
        if order.storage is not None and not Path(lock.lock_file).exists():
            continue  # its worker has another folder; the heartbeats tell whether it lives
        with suppress(Timeout), lock.acquire(timeout=0):
            _give_back(study, trial.number, crashed=True)


def _give_back(study: optuna.Study, number: int, *, crashed: bool) -> None:
    """Fail a trial that has not ended, with its point in the queue before."""
    trial = study.get_trials(deepcopy=False)[number]
    if trial.state == TrialState.RUNNING:
        _requeue(study, trial, crashed=crashed)
        study.tell(number, state=TrialState.FAIL, skip_if_finished=True)


def _requeue(study: optuna.Study, trial: FrozenTrial, *, crashed: bool) -> None:
    others = study.get_trials(deepcopy=False)
    if any(trial.number in other.user_attrs.get(AGAIN_OF, ()) for other in others):
        return
    crashes = trial.user_attrs.get(CRASHES, 0) + crashed
    if crashes >= MOST_CRASHES:
        return
    study.add_trial(
        create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            system_attrs=trial.system_attrs,
            user_attrs={
                AGAIN_OF: [*trial.user_attrs.get(AGAIN_OF, ()), trial.number],
                CRASHES: crashes,
            },
        )
    )


def _claiming(order: SearchOrder) -> FileLock:
    return FileLock(order.path / _CLAIM_LOCK)


def _running_lock(folder: Path, number: int) -> FileLock:
    return FileLock(folder / _RUNNING / f"{number}.lock")


@contextmanager
def _heartbeats(storage: BaseStorage, study: str, number: int) -> Iterator[None]:
    """Signs of life to a database, for the length of the context; a file needs none."""
    if not isinstance(storage, RDBStorage):
        yield
        return
    trial = storage.get_trial_id_from_study_id_trial_number(
        storage.get_study_id_from_name(study), number
    )
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
