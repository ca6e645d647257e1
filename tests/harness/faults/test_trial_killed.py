"""SIGKILL at any moment of a trial: training, sampling, measuring, writing down."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable

import pytest

from tests.support.processes.killed_trials import (
    ForkServer,
    Outcome,
    Place,
    assert_same_trial,
    read_journal,
)

KILLS = 20
KILLS_A_TRIAL = 5


@pytest.mark.slow
def test_a_trial_killed_at_20_random_moments_is_the_undisturbed_one(
    forks: ForkServer, new_place: Callable[..., Place], finished: tuple[Place, Outcome]
) -> None:
    undisturbed, outcome = finished
    moments = random.Random(20)
    kills = 0
    while kills < KILLS:
        place = new_place()
        for _ in range(min(KILLS_A_TRIAL, KILLS - kills)):
            after = moments.randrange(outcome.reports)
            killed = forks.run(place.task(), kill_after=after, delay=moments.uniform(0, 0.2))
            assert killed.code in (0, -signal.SIGKILL), place.log.read_text()
            if killed.code == 0:
                break
            kills += 1
        assert forks.run(place.task()).code == 0, place.log.read_text()
        assert_same_trial(place, undisturbed)
        events = len(read_journal(place.trial))
        # Now it is done: another process finds nothing left to do.
        assert forks.run(place.task()) == Outcome(0, 0)
        assert len(read_journal(place.trial)) == events
