"""Real processes on one study, with nothing to train."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from harness.search.config import SearchSpec
from harness.search.study import (
    AGAIN_OF,
    MOST_CRASHES,
    STUDY_FILE,
    claimed_trial,
    current,
    prepare_study,
    still_running,
    to_begin,
)
from models.errors import UserError
from tests.harness.search.conftest import SEARCH, Made
from tests.support.processes.claim_trials import hold_one, take_all

Make = Callable[..., Made]
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.support.processes.claim_trials"])


def kill_in_the_middle(spec: SearchSpec) -> int:
    """The number of the trial that a worker held when it was killed."""
    taken: SimpleQueue[int] = PROCESSES.SimpleQueue()
    worker = PROCESSES.Process(target=hold_one, args=(spec, taken))
    worker.start()
    number = taken.get()
    worker.kill()
    worker.join()
    return number


@pytest.fixture(params=["file", "database"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    return None if request.param == "file" else f"sqlite:///{tmp_path / 'study.db'}"


def test_several_processes_take_exactly_as_many_trials_as_asked_for(
    make: Make, storage: str | None
) -> None:
    spec = make(trials=7, storage=storage).spec
    study = prepare_study(spec)
    taken: SimpleQueue[int] = PROCESSES.SimpleQueue()
    workers = [PROCESSES.Process(target=take_all, args=(spec, taken)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(taken.get() for _ in range(7)) == list(range(7))
    assert taken.empty()
    assert {trial.state for trial in study.get_trials()} == {TrialState.COMPLETE}
    assert study.get_trials()[0].params == spec.default
    with claimed_trial(spec.model_copy(update={"trials": 8})) as claimed:
        assert claimed is not None  # a larger number goes on
        assert claimed[1].number == 7


def test_the_trial_of_a_killed_worker_goes_to_another_one(make: Make, storage: str | None) -> None:
    spec = make(trials=2, storage=storage).spec
    study = prepare_study(spec)
    killed = kill_in_the_middle(spec)
    with claimed_trial(spec) as claimed:
        assert claimed is not None
        dead, again = study.get_trials()
        assert dead.state == TrialState.FAIL
        assert (again.user_attrs[AGAIN_OF], again.params) == ([killed], dead.params)
        assert [trial.number for trial in still_running(spec, study)] == [again.number]
        study.tell(claimed[1].number, 1.0)
    assert to_begin(study.get_trials(), spec.trials) == 1
    assert [trial.number for trial in current(study.get_trials())] == [1]


def test_a_point_that_kills_its_worker_every_time_is_given_up(make: Make) -> None:
    spec = make(trials=1).spec
    study = prepare_study(spec)
    for _ in range(MOST_CRASHES):
        kill_in_the_middle(spec)
    assert still_running(spec, study) == []
    (last,) = current(study.get_trials())
    assert last.state == TrialState.FAIL
    assert to_begin(study.get_trials(), spec.trials) == 0


def test_an_interrupted_trial_is_given_back_as_often_as_it_takes(make: Make) -> None:
    spec = make(trials=1).spec
    study = prepare_study(spec)
    for _ in range(MOST_CRASHES + 2):
        with suppress(KeyboardInterrupt), claimed_trial(spec):
            raise KeyboardInterrupt
    with claimed_trial(spec) as claimed:
        assert claimed is not None
        assert claimed[1].params == spec.default
        study.tell(claimed[1].number, 1.0)
    assert [trial.state for trial in current(study.get_trials())] == [TrialState.COMPLETE]


def test_one_worker_draws_the_same_points_with_and_without_a_pause(make: Make) -> None:
    def points(spec: SearchSpec, *, until: tuple[int, ...]) -> list[dict[str, object]]:
        study = prepare_study(spec)
        for wanted in until:
            for _ in range(to_begin(study.get_trials(), wanted)):
                with claimed_trial(spec.model_copy(update={"trials": wanted})) as claimed:
                    assert claimed is not None
                    study.tell(claimed[1].number, claimed[1].params["attention.lambda_init"])
        return [trial.params for trial in study.get_trials()]

    made = make(SEARCH.replace("name: random", "name: tpe, startup_trials: 2")).spec
    straight = points(made, until=(6,))
    paused = points(made.model_copy(update={"folder": f"{made.folder}-2"}), until=(1, 3, 6))
    assert paused == straight
    assert len({tuple(point.values()) for point in straight}) == 6


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("high: 4", "high: 5", "space"),
        ("seeds: [0, 1]", "seeds: [0]", "objective"),
        ("baselines/dydila", "static_kernel/static_kernel", "base configuration"),
    ],
)
def test_trials_that_would_not_compare_never_share_a_study(
    make: Make, old: str, new: str, what: str
) -> None:
    prepare_study(make().spec)
    with pytest.raises(UserError, match=f"begun with another {what}, so its trials"):
        prepare_study(make(SEARCH.replace(old, new)).spec)


def test_sampler_and_pruner_may_change(make: Make) -> None:
    prepare_study(make().spec)
    changed = SEARCH.replace("random, seed: 5", "tpe").replace("median, startup_trials: 2", "none")
    prepare_study(make(changed).spec)


def test_a_line_that_a_full_disk_cut_off_is_removed(make: Make) -> None:
    spec = make().spec
    prepare_study(spec)
    path = spec.path / STUDY_FILE
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    study = prepare_study(spec)
    assert isinstance(study, optuna.Study)
    with claimed_trial(spec) as claimed:
        assert claimed is not None
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_damaged_file_is_told(make: Make) -> None:
    spec = make().spec
    prepare_study(spec)
    path = spec.path / STUDY_FILE
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.raises(UserError, match=r"study\.log is damaged .* restore it, or move it away"):
        prepare_study(spec)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("search.db", "expected the URL of a database, such as sqlite:"),
        ("nosql://user:secret@host/db", "--storage nosql://host/db cannot be used"),
        ("sqlite:////no/such/folder/x.db", "unable to open database file"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_line_without_password(
    make: Make, url: str, words: str
) -> None:
    with pytest.raises(UserError) as caught:
        prepare_study(make(storage=url).spec)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
