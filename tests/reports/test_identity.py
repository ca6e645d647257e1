from __future__ import annotations

import pytest

from models.errors import UserError
from reports.identity import (
    describe_identity,
    floor_mismatch,
    parse_identity,
    reference_count,
    shared_identity,
)

BASE = {"extractor": "net", "samples": 500, "reference": "r1", "steps": 50}


def test_equal_identities_are_shared_whatever_their_order() -> None:
    turned = dict(reversed(BASE.items()))
    assert shared_identity({"a seed 0": BASE, "b seed 0": turned}, "") == BASE
    assert shared_identity({}, "") == {}


def test_a_difference_names_every_field_and_whose_value_it_is() -> None:
    with pytest.raises(UserError) as error:
        shared_identity(
            {
                "a seed 0": BASE,
                "b seed 0": BASE | {"steps": 100},
                "c seed 0": BASE | {"steps": 100, "samples": 1000},
            },
            "run it again",
        )
    message = str(error.value)
    assert "steps: 50 (a seed 0); 100 (b seed 0, c seed 0)" in message
    assert "samples: 500 (a seed 0, b seed 0); 1000 (c seed 0)" in message
    assert "extractor" not in message
    assert "run it again" in message


def test_a_trial_without_identity_differs_from_one_that_has_it() -> None:
    with pytest.raises(UserError, match=r"\(not recorded\) \(b seed 0\)"):
        shared_identity({"a seed 0": BASE, "b seed 0": {}}, "")


def test_a_number_differs_from_its_text() -> None:
    with pytest.raises(UserError, match="steps"):
        shared_identity({"a": {"steps": 50}, "b": {"steps": "50"}}, "")


@pytest.mark.parametrize("text", ["{", "[1]", '"net"'])
def test_an_identity_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="MLflow run 7"):
        parse_identity(text, "MLflow run 7")
    assert parse_identity(None, "MLflow run 7") == {}


def test_a_floor_needs_no_sampler_but_the_same_extractor_samples_and_reference() -> None:
    floor = {key: BASE[key] for key in ("extractor", "samples", "reference")}
    assert floor_mismatch(floor, BASE) is None
    for field in floor:
        mismatch = floor_mismatch(floor | {field: "other"}, BASE)
        assert mismatch is not None
        assert field in mismatch


def test_a_floor_with_other_weights_or_without_a_sample_count_does_not_belong() -> None:
    floor = {"extractor": "net", "samples": 500, "reference": "r1", "weights": "w1"}
    assert floor_mismatch(floor, BASE | {"weights": "w1"}) is None
    assert floor_mismatch(floor, BASE | {"weights": "w2"}) is not None
    assert floor_mismatch({}, {}) is not None


def test_the_reference_tells_its_count_where_it_was_recorded() -> None:
    assert reference_count({"reference": "0123456789ab (1500 images)"}) == 1500
    assert reference_count({"reference": "0123456789ab (None images)"}) is None
    assert reference_count({}) is None


def test_an_identity_reads_as_a_sentence() -> None:
    identity = {"sampler": "flow_euler", "guidance_scale": 1.5, "guidance_channels": None}
    assert describe_identity(identity) == "sampler flow_euler, guidance scale 1.5"
