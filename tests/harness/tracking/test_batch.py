from __future__ import annotations

from harness.tracking.delivery import Batch
from harness.tracking.events import End, Metrics, Params, Tags


def test_parts_keep_within_mlflows_limits_and_lose_nothing() -> None:
    from mlflow.utils.validation import _validate_batch_log_limits

    batch = Batch()
    metrics = {f"m{i}": float(i) for i in range(1500)}
    params = {f"p{i}": str(i) for i in range(250)}
    tags = {f"t{i}": str(i) for i in range(101)}
    assert batch.take(Params(params))
    assert batch.take(Tags(tags))
    assert batch.take(Metrics(metrics, 3, 1000))
    sent = [part.entities(str) for part in batch.parts()]
    for part in sent:
        _validate_batch_log_limits(*part)
    assert {m.key: m.value for part in sent for m in part[0]} == metrics
    assert {p.key: p.value for part in sent for p in part[1]} == params
    assert {t.key: t.value for part in sent for t in part[2]} == tags
    assert {(m.step, m.timestamp) for part in sent for m in part[0]} == {(3, 1000)}


def test_a_batch_ends_where_it_is_full_or_another_kind_follows() -> None:
    batch = Batch()
    assert not batch.take(End("FINISHED", "", 0))
    taken = 0
    while batch.take(Metrics({"loss": 1.0}, taken, 0)):
        taken += 1
    assert taken == 800


def test_overlong_values_are_cut_visibly() -> None:
    batch = Batch(params={"config": "x" * 6001, "fits": "x" * 6000}, tags={"note": "y" * 9000})
    _, (config, fits), (note,) = batch.entities(str)
    assert len(config.value) == 6000
    assert config.value.endswith("x ... (cut)")
    assert fits.value == "x" * 6000
    assert len(note.value) == 8000
    assert note.value.endswith("y ... (cut)")
