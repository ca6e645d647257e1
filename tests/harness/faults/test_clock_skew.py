"""Machines whose clocks are a year apart work on one trial, one after the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.processes.killed_trials import ForkServer, Outcome, Place, assert_same_trial

YEAR = 365 * 24 * 3600


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(YEAR, -YEAR), (-YEAR, YEAR)])
def test_a_trial_resumed_where_the_clock_is_another_is_the_undisturbed_one(
    forks: ForkServer,
    new_place: Callable[..., Place],
    finished: tuple[Place, Outcome],
    first: int,
    second: int,
) -> None:
    undisturbed, outcome = finished
    place = new_place()
    killed = forks.run({**place.task(), "skew": first}, kill_after=outcome.reports // 2)
    assert killed.code < 0
    assert forks.run({**place.task(), "skew": second}).code == 0, place.log.read_text()
    assert_same_trial(place, undisturbed)
    # And a third one, whose clock is right, sees that nothing is left to do.
    assert forks.run(place.task()) == Outcome(0, 0)
