from __future__ import annotations

import math

import pytest

from harness.vocabulary import names
from harness.vocabulary.metrics import BY_KEY, Direction
from reports.columns import Column, Kind, columns_for, extractor_title


def column(key: str, *values: float) -> Column:
    (found,) = columns_for({key: values})
    return found


def test_the_inception_figure_alone_is_called_fid_and_is() -> None:
    assert column(BY_KEY["fd"].recorded("inception"), 1.0).heading == "FID \u2193"
    assert column(BY_KEY["is"].recorded("inception"), 1.0).heading == "IS \u2191"
    other = column(BY_KEY["fd"].recorded("efficientnet_lite0"), 1.0)
    assert other.heading == "FD (EfficientNet-Lite0) \u2193"
    assert other.key == "fd_efficientnet_lite0"
    score = column(BY_KEY["is"].recorded("efficientnet_lite0"), 1.0)
    assert score.heading == "IS (EfficientNet-Lite0) \u2191"


def test_an_unknown_extractor_gets_a_readable_name() -> None:
    assert extractor_title("some_net_v2") == "Some Net V2"
    assert column("fd_some_net_v2", 1.0).title == "FD (Some Net V2)"


@pytest.mark.parametrize(
    ("key", "value", "title", "shown"),
    [
        (names.PARAMETERS, 118_661_234.0, "parameters (M)", "118.7"),
        (names.PARAMETERS, 1_250_000.0, "parameters (M)", "1.250"),
        (names.PARAMETERS, 96_500.0, "parameters (K)", "96.50"),
        (names.FLOPS, 6.06e9, "GFLOPs", "6.060"),
        (names.FLOPS, 2.31e7, "MFLOPs", "23.10"),
        (names.FLOPS, 2.1e5, "MFLOPs", "0.2100"),
        (names.MACS, 118.66e9, "GMACs", "118.7"),
        (names.TRAINING_MEMORY, 3 * 2.0**20, "training memory (MiB)", "3.000"),
        (names.TRAIN_IMAGES_PER_SECOND, 1234.6, "train images/s", "1235"),
        (names.SAMPLING_IMAGES_PER_SECOND, 41.26, "sampling images/s", "41.3"),
        (names.VALIDATION_LOSS, 0.34889, "validation loss", "0.3489"),
        (names.HEADS, 12.0, "heads", "12"),
        (names.HEAD_WIDTH, 32.0, "head width", "32"),
        (names.QKV_BIAS, 0.0, "qkv bias (1 = yes)", "0"),
        ("fd_efficientnet_lite0", 7.888, "FD (EfficientNet-Lite0)", "7.89"),
    ],
)
def test_units_and_precision_fit_the_values(key: str, value: float, title: str, shown: str) -> None:
    found = column(key, value)
    assert found.title == title
    assert found.shown(value) == shown


def test_the_largest_value_chooses_the_unit_for_the_whole_column() -> None:
    found = column(names.FLOPS, 2e8, 3e9)
    assert found.title == "GFLOPs"
    assert found.shown(2e8) == "0.200"


def test_columns_stand_in_table_order_and_only_where_there_are_values() -> None:
    values = {
        names.SAMPLING_IMAGES_PER_SECOND: [1.0],
        names.PARAMETERS: [1.0],
        names.VALIDATION_LOSS: [1.0],
        names.FLOPS: [math.nan],
        "is_efficientnet_lite0": [1.0],
        "fd_efficientnet_lite0": [1.0],
        "fid": [1.0],
        names.GRADIENT_NORM: [1.0],
    }
    assert [found.key for found in columns_for(values)] == [
        "fid",
        "fd_efficientnet_lite0",
        "is_efficientnet_lite0",
        names.VALIDATION_LOSS,
        names.PARAMETERS,
        names.SAMPLING_IMAGES_PER_SECOND,
    ]


def test_counts_have_no_direction_and_quality_is_told_from_speed() -> None:
    assert column(names.PARAMETERS, 1.0).direction is Direction.NONE
    assert column(names.PARAMETERS, 1.0).heading == "parameters (K)"
    assert column(names.VALIDATION_LOSS, 1.0).kind is Kind.QUALITY
    assert column(names.TRAIN_IMAGES_PER_SECOND, 1.0).kind is Kind.MACHINE


def test_a_difference_always_shows_its_sign() -> None:
    loss = column(names.VALIDATION_LOSS, 1.0)
    assert loss.signed(0.25) == "+0.2500"
    assert loss.signed(-0.25) == "-0.2500"


def test_the_probes_columns_come_last_have_no_direction_and_are_no_quality() -> None:
    probed = {
        names.ROUTING_ENTROPY: ("routing entropy", "0.750"),
        names.TOKEN_SIMILARITY: ("token similarity", "0.750"),
        names.ATTENTION_EFFECTIVE_RANK: ("effective rank", "0.75"),
        names.ATTENTION_ENTROPY: ("attention entropy", "0.750"),
    }
    found = columns_for({**{key: [0.75] for key in probed}, names.TRAINING_MEMORY: [1.0]})
    assert [one.key for one in found] == [names.TRAINING_MEMORY, *reversed(probed)]
    for one in found[1:]:
        assert (one.heading, one.shown(0.75)) == probed[one.key]
        assert (one.direction, one.kind, one.compact) == (Direction.NONE, Kind.PROBE, False)


SHADES = {
    "kd_efficientnet_lite0": "KD x 1000",
    "precision_efficientnet_lite0": "precision",
    "recall_efficientnet_lite0": "recall",
    "density_efficientnet_lite0": "density",
    "coverage_efficientnet_lite0": "coverage",
}


def test_figures_beside_the_distance_stand_after_it_in_few_letters() -> None:
    values = {key: [0.5] for key in [names.VALIDATION_LOSS, *reversed(SHADES)]}
    found = columns_for({**values, "fd_efficientnet_lite0": [1.0]})
    assert [one.key for one in found] == ["fd_efficientnet_lite0", *SHADES, names.VALIDATION_LOSS]
    assert [one.title for one in found[1:-1]] == [*SHADES.values()]
    assert {one.kind for one in found[1:-1]} == {Kind.SHADES}
    assert not any(one.compact for one in found[1:-1])
    assert found[1].direction is Direction.LOWER
    assert {one.direction for one in found[2:-1]} == {Direction.HIGHER}


def test_a_kernel_distance_is_shown_in_thousandths() -> None:
    found = column(BY_KEY["kd"].recorded("efficientnet_lite0"), 0.01234)
    assert found.shown(0.01234) == "12.34"
    assert column(BY_KEY["kd"].recorded("inception"), 0.01).title == "KID x 1000"
    assert column(BY_KEY["sfd"].recorded("inception"), 3.0).title == "sFID"


def test_two_extractors_are_told_apart() -> None:
    found = columns_for({"precision_inception": [0.5], "precision_efficientnet_lite0": [0.5]})
    assert {one.title for one in found} == {"precision", "precision (EfficientNet-Lite0)"}


def test_deviations_over_subsets_are_no_columns() -> None:
    key = BY_KEY["kd"].recorded("efficientnet_lite0")
    found = columns_for({key: [1.0], names.spread(key): [1.0], "is_x/std": [1.0]})
    assert [one.key for one in found] == [key]
