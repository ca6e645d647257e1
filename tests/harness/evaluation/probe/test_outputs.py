from __future__ import annotations

import math

from harness.evaluation.probe.outputs import probe_metrics
from harness.evaluation.probe.probe import (
    EFFECTIVE_RANK,
    EMPTY_ROWS,
    ENTROPY,
    ROUTING_ENTROPY,
    SIMILARITY,
    ProbeRow,
)
from harness.vocabulary.names import check_name


def test_means_are_logged_over_all_and_of_each_layer_and_timestep() -> None:
    rows = [
        ProbeRow(layer, timestep, metric, value, head=head)
        for metric in (ENTROPY, EFFECTIVE_RANK, SIMILARITY)
        for layer, timestep, head, value in (
            (0, 240.4, 0, 0.1),
            (0, 240.4, 1, 0.3),
            (0, 759.6, 0, 0.5),
            (3, 240.4, 0, math.nan),
            (3, 759.6, 0, 0.7),
        )
    ]
    rows.append(ProbeRow(0, 240.4, EMPTY_ROWS, 0.0, head=0))
    rows.append(ProbeRow(3, 759.6, ROUTING_ENTROPY, 0.25, router="query_kernel"))
    metrics = probe_metrics(rows)
    rounded = {name: round(value, 9) for name, value in metrics.items()}
    assert rounded == {
        **{
            f"{metric}{suffix}": value
            for metric in ("attention_entropy", "attention_effective_rank", "token_similarity")
            for suffix, value in {
                "": 0.4,
                "/layer_00": 0.3,
                "/layer_03": 0.7,
                "/timestep_0240": 0.2,
                "/timestep_0760": 0.6,
            }.items()
        },
        "routing_entropy": 0.25,
        "routing_entropy/layer_03": 0.25,
        "routing_entropy/timestep_0760": 0.25,
    }
    for name in metrics:
        check_name(name)


def test_nothing_is_logged_of_nothing() -> None:
    assert probe_metrics([]) == {}
