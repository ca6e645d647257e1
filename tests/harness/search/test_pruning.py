from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.pruners import MedianPruner

from harness.search.worker import Pruning, recorded_losses
from harness.tracking.journal import Journal
from harness.vocabulary.names import VALIDATION_LOSS

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
