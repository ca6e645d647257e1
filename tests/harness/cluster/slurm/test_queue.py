from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cluster.slurm.queue import (
    JobRecord,
    OutcomeState,
    QueuedJob,
    TaskOutcome,
    is_active,
    outcome_file,
    parse_queue,
    read_outcome,
    read_record,
    record_file,
    write_outcome,
    write_record,
)

RECORD = JobRecord("12_3", "20270101-000000-abcdef", 1.0)


LISTING = """\
12_3|harness-20270101-000000-abcdef|RUNNING|1:59:30|None
12_4|harness-20270101-000000-abcdef|PENDING|2:00:00|JobArrayTaskLimit
"""


def queue(state: str, name: str = "harness-20270101-000000-abcdef") -> dict[str, QueuedJob]:
    return parse_queue(f"12_3|{name}|{state}|1:00|None\n")


def outcome(state: OutcomeState) -> TaskOutcome:
    return TaskOutcome("12_3", RECORD.submission, state, 2, 5.0, "why")


def test_the_queue_is_read() -> None:
    jobs = parse_queue(LISTING)
    assert jobs["12_3"].runs
    assert jobs["12_3"].time_left == "1:59:30"
    assert jobs["12_4"].waits
    assert jobs["12_4"].reason == "JobArrayTaskLimit"


def test_records_and_outcomes_come_back(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    assert read_record(result) is None
    write_record(result, RECORD)
    write_outcome(result, outcome("requeued"))
    assert read_record(result) == RECORD
    assert read_outcome(result, RECORD) == outcome("requeued")
    assert {record_file(result).name, outcome_file(result).name} == {
        path.name for path in tmp_path.iterdir()
    }


def test_an_outcome_belongs_to_one_job_alone(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    write_outcome(result, outcome("failed"))
    assert read_outcome(result, replace(RECORD, job="12_4")) is None
    assert read_outcome(result, replace(RECORD, submission="another")) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"job": "1"}', '{"unknown": 1}'])
def test_damaged_records_count_as_none(tmp_path: Path, content: str) -> None:
    result = tmp_path / "result.json"
    record_file(result).write_text(content)
    outcome_file(result).write_text(content)
    assert read_record(result) is None
    assert read_outcome(result, RECORD) is None


@pytest.mark.parametrize(
    ("state", "said", "cancelled", "expected"),
    [
        ("PENDING", None, False, True),
        ("RUNNING", "running", False, True),
        ("RUNNING", "running", True, False),
        ("PENDING", "requeued", False, True),
        ("COMPLETING", "requeued", False, True),
        ("COMPLETING", "running", False, True),
        ("COMPLETING", "failed", False, False),
        ("COMPLETING", "requeued", True, False),
        ("TIMEOUT", "running", False, False),
        ("CANCELLED", None, False, False),
        ("COMPLETED", "done", False, False),
    ],
)
def test_which_jobs_still_do_their_work(
    tmp_path: Path, state: str, said: OutcomeState | None, cancelled: bool, expected: bool
) -> None:
    result = tmp_path / "result.json"
    if said is not None:
        write_outcome(result, outcome(said))
    record = replace(RECORD, cancelled=cancelled)
    assert is_active(result, record, queue(state)) is expected


def test_a_job_of_the_same_number_but_another_name_is_another_job(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    assert not is_active(result, RECORD, queue("RUNNING", name="harness-of-last-year"))
    assert not is_active(result, RECORD, {})
