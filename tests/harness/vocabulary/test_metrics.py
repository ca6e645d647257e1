from __future__ import annotations

from typing import get_args

import pytest

from harness.config.sections import TrainConfig
from harness.evaluation.quality import _FUNCTIONS
from harness.vocabulary.metrics import (
    BY_KEY,
    METRICS,
    Direction,
    JudgedBy,
    Measurement,
    higher_is_better,
    recorded_name,
)
from harness.vocabulary.names import check_name
from reports.columns import columns_for


def test_the_names_of_the_field_are_kept_for_inception() -> None:
    on_inception = {metric.key: metric.recorded("inception") for metric in METRICS}
    assert on_inception == {
        "fd": "fid",
        "sfd": "sfid",
        "kd": "kid",
        "is": "is",
        **{key: f"{key}_inception" for key in ("precision", "recall", "density", "coverage")},
    }
    assert BY_KEY["fd"].recorded("torch:vit") == "fd_torch:vit"
    assert BY_KEY["fd"].printed_title("inception") == "FID"
    assert BY_KEY["kd"].printed_title("x") == "KD x 1000"


@pytest.mark.parametrize("extractor", ["inception", "efficientnet_lite0", "torch:resnet50.a1_in1k"])
def test_a_recorded_name_tells_its_metric_and_extractor(extractor: str) -> None:
    for metric in METRICS:
        name = metric.recorded(extractor)
        check_name(name)
        told = [one.key for one in METRICS if one.extractor_of(name) == extractor]
        assert told == [metric.key]


def test_every_metric_is_computed_chosen_by_and_shown() -> None:
    """A metric without a function, a place in configurations or a column is noticed here."""
    assert set(_FUNCTIONS) == set(Measurement) == {metric.measurement for metric in METRICS}
    assert {one.key for each in Measurement for one in each.metrics} == set(BY_KEY)
    assert set(get_args(JudgedBy)) == {"validation_loss", *BY_KEY}
    assert "coverage" in str(TrainConfig.model_fields["best_by"].annotation)
    shown = columns_for({recorded_name(key, "x"): [0.5] for key in get_args(JudgedBy)})
    assert {column.key for column in shown} == {"validation_loss", *(f"{key}_x" for key in BY_KEY)}
    for column in shown:
        key = column.key.removesuffix("_x")
        assert column.direction is (Direction.HIGHER if higher_is_better(key) else Direction.LOWER)
