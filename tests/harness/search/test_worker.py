"""Trials that end before much is trained: finished, hopeless or impossible ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import MedianPruner
from optuna.trial import TrialState
from rich.console import Console

from harness.config.load import load_cluster
from harness.config.trial_hash import trial_hash
from harness.machine.environment import EXPERIMENTS
from harness.machine.files import write_text
from harness.processes.progress import ignore_progress
from harness.processes.signals import StopRequest
from harness.search.config import SearchSpec, config_at
from harness.search.launch import run_search
from harness.search.study import REASON, prepare_study
from harness.search.worker import Pruning, recorded_losses, search_trials
from harness.tracking.events import JOURNAL_FILE, End, Metrics, read_events
from harness.tracking.journal import Journal
from harness.trial.spec import RESULT
from harness.vocabulary.names import VALIDATION_LOSS
from models.errors import UserError
from tests.harness.search.conftest import SEARCH, Made
from tests.support.stand_ins.finished import FINISHED

Make = Callable[..., Made]


def run(spec: SearchSpec) -> dict[str, Any]:
    """As a pool's worker is given it."""
    payload = {
        "spec": spec.model_dump(mode="json"),
        "result": str(spec.path / "jobs" / "0001" / "result.json"),
    }
    return search_trials(json.loads(json.dumps(payload)), ignore_progress, StopRequest())


def folder_of(spec: SearchSpec, point: dict[str, Any], seed: int, variant: str = "s") -> Path:
    name = trial_hash(config_at(spec.tree, point, seed, "here"))
    return Path(spec.runs_dir) / spec.scale / variant / f"seed{seed}-{name}"


def finish(folder: Path, **metrics: float) -> None:
    write_text(folder / RESULT, json.dumps({**json.loads(FINISHED), "metrics": metrics}))


def test_finished_trainings_are_reused_whatever_their_folder_is_called(make: Make) -> None:
    spec = make().spec
    assert spec.default is not None
    for seed, variant, value in ((0, "dydila", 2.0), (1, "s", 4.0)):
        finish(folder_of(spec, spec.default, seed, variant), validation_loss=value)
    study = prepare_study(spec)
    told = run(spec)
    assert (told["number"], told["state"], told["about"]) == (0, "complete", "validation_loss 3")
    assert study.best_value == 3.0
    assert json.loads(study.best_trial.user_attrs["scores"]) == {"0": 2.0, "1": 4.0}


def test_values_that_do_not_fit_together_fail_the_trial_alone(make: Make) -> None:
    text = SEARCH.replace(
        "model.depth: {low: 1, high: 4}", "model.width: [64, 96]\n  model.heads: [4, 64]"
    )
    spec = make(text).spec
    study = prepare_study(spec)
    study.ask()  # the base
    study.enqueue_trial({"attention.lambda_init": 0.01, "model.width": 96, "model.heads": 64})
    told = run(spec)
    assert told["state"] == "failed"
    assert "model.heads must divide model.width" in told["about"]
    failed = study.get_trials()[told["number"]]
    assert failed.state == TrialState.FAIL
    assert failed.user_attrs[REASON].startswith("trial 1: model.heads")


def test_a_metric_that_no_result_has_fails_the_trial(make: Make) -> None:
    text = SEARCH.replace("objective: {seeds: [0, 1]}", "objective: {metric: coverage, seeds: [0]}")
    spec = make(text).spec
    assert spec.default is not None
    prepare_study(spec)
    finish(folder_of(spec, spec.default, 0), validation_loss=1.0)
    assert "has no coverage_efficientnet_lite0: it could not be measured" in run(spec)["about"]


def test_a_training_that_was_worse_before_is_not_gone_on_with(make: Make) -> None:
    spec = make(SEARCH.replace("startup_trials: 2", "startup_trials: 1"), trials=2).spec
    study = prepare_study(spec)
    base = study.ask(dict(spec.distributions()))
    for position in (10, 20, 30, 40):
        base.report(1.0, position)
    study.tell(base, 1.0)
    point = {"attention.lambda_init": 0.05, "model.depth": 2}
    study.enqueue_trial(point)
    journal = Journal(folder_of(spec, point, 0))
    journal.start(experiment="smoke", run_name="r", tags={}, params={})
    journal.metrics({"validation_loss": 1.5}, 10)
    journal.close()
    told = run(spec)
    assert (told["state"], told["about"]) == ("pruned", "pruned at step 10 of seed 1")
    assert study.get_trials()[1].state == TrialState.PRUNED


def test_a_hopeless_training_stops_in_the_middle_and_can_be_gone_on_with(make: Make) -> None:
    text = SEARCH.replace("startup_trials: 2", "startup_trials: 1").replace(
        "base: baselines/dydila", "base: {attention.name: dydila, train.batch_size: 8}"
    )
    spec = make(text, trials=2).spec
    study = prepare_study(spec)
    base = study.ask(dict(spec.distributions()))
    for position in (10, 20, 30, 40):
        base.report(0.001, position)
    study.tell(base, 0.001)
    point = {"attention.lambda_init": 0.05, "model.depth": 1}
    study.enqueue_trial(point)
    told = run(spec)
    assert (told["state"], told["about"]) == ("pruned", "pruned at step 10 of seed 1")
    folder = folder_of(spec, point, 0)
    with (folder / JOURNAL_FILE).open("rb") as file:
        events = [event for event, _ in read_events(file, 0)]
    (end,) = [event for event in events if isinstance(event, End)]
    assert (end.status, end.reason) == ("KILLED", "stopped by pruning at step 10")
    steps = {event.step for event in events if isinstance(event, Metrics)}
    assert max(steps) == 10
    assert [path.name for path in folder.glob("checkpoints/*.ckpt")] == ["step-00000010.ckpt"]
    assert not folder_of(spec, point, 1).exists()


def test_nothing_is_taken_once_all_trials_are(make: Make) -> None:
    spec = make(trials=1).spec
    study = prepare_study(spec)
    study.tell(study.ask(), 1.0)
    assert run(spec) == {"number": None}


@pytest.mark.parametrize("trials", [0, -1])
def test_no_trials_are_no_search(make: Make, trials: int, tmp_path: Path) -> None:
    cluster = load_cluster("local", [], EXPERIMENTS)
    with pytest.raises(UserError, match=f"--trials is {trials}: expected a whole number >= 1"):
        run_search(
            make().search,
            cluster,
            trials=trials,
            storage=None,
            runs_dir=tmp_path / "none",
            console=Console(),
        )
    assert not (tmp_path / "none").exists()


LONGEST = 100


STEPS = (50, 100)


@pytest.fixture
def study() -> optuna.Study:
    """Two completed trials whose losses are 1.0 and then 0.5, with each of two seeds."""
    study = optuna.create_study(pruner=MedianPruner(n_startup_trials=2))
    for _ in range(2):
        trial = study.ask()
        pruning = Pruning(trial, negate=False, longest=LONGEST)
        assert not any(run_seed(pruning, [1.0, 0.5], last=last) for last in (False, True))
        study.tell(trial, 0.5)
    return study


def run_seed(
    pruning: Pruning, losses: list[float], *, last: bool, folder: Path | None = None
) -> bool:
    """Whether it was stopped."""
    go_on = pruning.begin_seed(folder or Path("/nowhere"), STEPS[-1], last_seed=last)
    for step, loss in zip(STEPS, losses, strict=True) if go_on else ():
        pruning.listen({VALIDATION_LOSS: loss, "train_loss": 0.0}, step)
    return pruning.stop.requested


def journal(folder: Path, losses: dict[int, float]) -> Path:
    written = Journal(folder)
    written.start(experiment="e", run_name="r", tags={}, params={})
    for step, loss in losses.items():
        written.metrics({VALIDATION_LOSS: loss, "train_loss": 9.0}, step)
        written.metrics({"train_loss": 9.0}, step + 1)
    written.close()
    return folder


def test_what_is_told_is_the_mean_of_the_seeds_at_the_same_step(study: optuna.Study) -> None:
    trial = study.ask()
    pruning = Pruning(trial, negate=False, longest=LONGEST)
    run_seed(pruning, [0.8, 0.4], last=False)
    run_seed(pruning, [0.6, 0.5], last=True)
    told = study.trials[trial.number].intermediate_values
    assert told == pytest.approx({50: 0.8, 100: 0.4, 150: 0.7, 200: 0.45})


def test_worse_than_the_median_stops_at_once_and_says_where(study: optuna.Study) -> None:
    pruning = Pruning(study.ask(), negate=False, longest=LONGEST)
    assert run_seed(pruning, [1.1, 0.1], last=False)
    assert pruning.where == "at step 50 of seed 1"
    assert pruning.stop.reason == "pruning"


def test_the_end_of_the_last_seed_never_stops_what_is_complete(study: optuna.Study) -> None:
    for last, stopped in ((False, True), (True, False)):
        pruning = Pruning(study.ask(), negate=False, longest=LONGEST)
        assert run_seed(pruning, [1.0, 0.9], last=last) == stopped


def test_where_more_is_better_a_higher_loss_is_still_worse() -> None:
    study = optuna.create_study(direction="maximize", pruner=MedianPruner(n_startup_trials=1))
    first = study.ask()
    assert not run_seed(Pruning(first, negate=True, longest=LONGEST), [1.0, 0.5], last=True)
    study.tell(first, 3.0)
    assert run_seed(Pruning(study.ask(), negate=True, longest=LONGEST), [1.1, 0.4], last=True)
    assert not run_seed(Pruning(study.ask(), negate=True, longest=LONGEST), [0.9, 0.4], last=True)


def test_a_resumed_trial_is_judged_by_what_it_recorded_before(
    study: optuna.Study, tmp_path: Path
) -> None:
    begun = journal(tmp_path / "begun", {50: 0.9})
    trial = study.ask()
    pruning = Pruning(trial, negate=False, longest=LONGEST)
    assert not run_seed(pruning, [7.0, 0.4], last=False, folder=begun)  # 50 comes a second time
    assert study.trials[trial.number].intermediate_values == {50: 0.9, 100: 0.4}
    hopeless = journal(tmp_path / "hopeless", {50: 1.5, 100: 1.4})
    again = Pruning(study.ask(), negate=False, longest=LONGEST)
    assert run_seed(again, [0.0, 0.0], last=False, folder=hopeless)
    assert again.where == "at step 50 of seed 1"


def test_losses_are_read_from_a_journal_in_the_order_of_their_steps(tmp_path: Path) -> None:
    assert recorded_losses(tmp_path / "none") == {}
    assert recorded_losses(journal(tmp_path / "some", {20: 2.0, 10: 1.0})) == {10: 1.0, 20: 2.0}


def test_a_loss_that_is_not_finite_is_left_to_the_training(study: optuna.Study) -> None:
    trial = study.ask()
    pruning = Pruning(trial, negate=False, longest=LONGEST)
    assert not run_seed(pruning, [float("nan"), float("inf")], last=False)
    assert study.trials[trial.number].intermediate_values == {}
