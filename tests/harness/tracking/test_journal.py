from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tracking.events import JOURNAL_FILE, first_event
from harness.tracking.journal import Journal

REPOSITORY = Path(__file__).parents[3]


def started(folder: Path) -> Journal:
    journal = Journal(folder)
    journal.start(experiment="digits", run_name="sana/seed0", tags={}, params={})
    return journal


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / JOURNAL_FILE).read_text().splitlines()]


def logged(folder: Path, metric: str) -> list[tuple[int, float]]:
    events = [line for line in lines(folder) if line["event"] == "metrics"]
    return [(e["step"], e["values"][metric]) for e in events if metric in e["values"]]


def test_events_are_in_the_file_as_soon_as_the_call_returns(tmp_path: Path) -> None:
    journal = started(tmp_path)
    journal.metrics({"train_loss": 0.1 + 0.2}, 7)
    assert logged(tmp_path, "train_loss") == [(7, 0.1 + 0.2)]


def test_a_resumed_trial_logs_repeated_steps_once(tmp_path: Path) -> None:
    first = started(tmp_path)
    for step in range(5):
        first.metrics({"train_loss": float(step)}, step)
    first.close()
    resumed = started(tmp_path)
    for step in range(3, 8):
        resumed.metrics({"train_loss": float(step), "gradient_norm": 1.0}, step)
    assert logged(tmp_path, "train_loss") == [(step, float(step)) for step in range(8)]
    assert [step for step, _ in logged(tmp_path, "gradient_norm")] == [3, 4, 5, 6, 7]


def test_a_torn_last_line_is_cut_off_and_the_rest_kept(tmp_path: Path) -> None:
    started(tmp_path).metrics({"train_loss": 1.0}, 0)
    whole = (tmp_path / JOURNAL_FILE).read_bytes()
    for torn in (b'{"event":"metrics","values":{"train_l', b'{"event":"end"}', b"\0\0\0\0"):
        (tmp_path / JOURNAL_FILE).write_bytes(whole + torn)
        journal = Journal(tmp_path)
        assert (tmp_path / JOURNAL_FILE).read_bytes() == whole
        journal.metrics({"train_loss": 1.0}, 0)
        assert (tmp_path / JOURNAL_FILE).read_bytes() == whole


def test_a_journal_torn_in_its_first_line_begins_anew(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_FILE).write_bytes(b'{"event":"begin","jour')
    assert first_event(tmp_path) is None
    started(tmp_path)
    assert first_event(tmp_path) is not None


def test_sigkill_while_writing_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    program = """
import itertools, sys
from pathlib import Path
from harness.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.start(experiment="digits", run_name="r", tags={}, params={})
for step in itertools.count():
    journal.metrics({"train_loss": 1 / (step + 1), "gradient_norm": 2.0}, step)
    print(step, flush=True)
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    for _ in range(300):
        writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged = 300 + len(writer.stdout.read().split(b"\n")) - 1
    writer.wait()
    resumed = started(tmp_path)
    kept = logged(tmp_path, "train_loss")
    assert kept[:acknowledged] == [(step, 1 / (step + 1)) for step in range(acknowledged)]
    assert len(kept) <= acknowledged + 1
    resumed.metrics({"train_loss": 0.0}, 0)
    assert len(logged(tmp_path, "train_loss")) == len(kept)


def test_infinite_and_nan_values_are_left_out_and_named_in_a_tag(tmp_path: Path) -> None:
    journal = started(tmp_path)
    journal.metrics({"train_loss": float("inf"), "gradient_norm": 1.0}, 4)
    journal.metrics({"train_loss": float("nan")}, 5)
    journal.metrics({"train_loss": 2.0}, 6)
    assert logged(tmp_path, "train_loss") == [(6, 2.0)]
    assert logged(tmp_path, "gradient_norm") == [(4, 1.0)]
    tags = [line["tags"] for line in lines(tmp_path) if line["event"] == "tags"]
    assert tags == [{"harness.non_finite.train_loss": "inf at step 4, left out; the first one"}]


def test_start_on_resume_keeps_name_parent_and_params_and_updates_tags(tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    first = Journal(folder)
    first.start(
        experiment="digits",
        run_name="sana/seed0",
        tags={"device": "cpu", "variant": "sana"},
        params={"train.steps": 10, "data.workers": 0, "train.betas": [0.9, 0.999], "path": None},
        parent=tmp_path / "first_parent",
    )
    begin = first_event(folder)
    first.end("FAILED", "killed")
    first.close()
    before = len(lines(folder))
    resumed = Journal(folder)
    resumed.start(
        experiment="digits",
        run_name="another name",
        tags={"device": "gpu", "variant": "sana"},
        params={"train.steps": 10, "data.workers": 2, "train.betas": [0.9, 0.999], "path": None},
        parent=tmp_path / "second_parent",
    )
    assert first_event(folder) == begin
    new = lines(folder)[before:]
    assert [line["event"] for line in new] == ["resume", "tags", "tags"]
    assert new[1]["tags"] == {"device": "gpu"}
    assert new[2]["tags"] == {"harness.changed_on_resume": '{"data.workers": "2"}'}
    params = [line["params"] for line in lines(folder) if line["event"] == "params"]
    assert params == [
        {
            "train.steps": "10",
            "data.workers": "0",
            "train.betas": "[0.9, 0.999]",
            "path": "null",
        }
    ]


@pytest.mark.parametrize("name", ["fd↓", "fd@10k", "../escape", ""])
def test_a_name_that_mlflow_refuses_is_refused_before_it_is_written(
    tmp_path: Path, name: str
) -> None:
    journal = started(tmp_path)
    before = (tmp_path / JOURNAL_FILE).read_bytes()
    with pytest.raises(ValueError, match="MLflow"):
        journal.metrics({"train_loss": 1.0, name: 1.0}, 0)
    with pytest.raises(ValueError, match="MLflow"):
        journal.tags({name: "x"})
    assert (tmp_path / JOURNAL_FILE).read_bytes() == before


def test_artifacts_must_be_files_of_the_folder(tmp_path: Path) -> None:
    journal = started(tmp_path / "trial")
    (tmp_path / "outside.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"outside\.png"):
        journal.artifact(tmp_path / "outside.png")
    with pytest.raises(FileNotFoundError):
        journal.artifact(Path("missing.png"))
    (tmp_path / "trial" / "grid").mkdir()
    (tmp_path / "trial" / "grid" / "a.png").write_bytes(b"x")
    journal.artifact(tmp_path / "trial" / "grid" / "a.png", folder="pictures")
    last = lines(tmp_path / "trial")[-1]
    assert (last["path"], last["folder"]) == ("grid/a.png", "pictures")


def test_nothing_is_written_before_the_run_has_begun(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(RuntimeError, match="started"):
        journal.metrics({"train_loss": 1.0}, 0)
    assert (tmp_path / JOURNAL_FILE).read_bytes() == b""


def test_opening_a_journal_while_another_process_writes_it_loses_no_line(tmp_path: Path) -> None:
    """Each opening cuts off a line that looks torn: it must not be one that is being written."""
    program = """
import sys
from pathlib import Path
from harness.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.start(experiment="digits", run_name="r", tags={}, params={})
print("begun", flush=True)
for step in range(6000):
    journal.metrics({"train_loss": 1.0, "x" * 200: 2.0}, step)
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    opened = 0
    while writer.poll() is None:
        Journal(tmp_path).close()
        opened += 1
    assert writer.returncode == 0
    assert opened > 5
    assert [step for step, _ in logged(tmp_path, "train_loss")] == list(range(6000))


def test_a_journal_whose_first_line_is_damaged_begins_again_and_keeps_the_rest(
    tmp_path: Path,
) -> None:
    journal = started(tmp_path)
    journal.metrics({"train_loss": 0.5}, 3)
    journal.close()
    content = (tmp_path / JOURNAL_FILE).read_bytes()
    (tmp_path / JOURNAL_FILE).write_bytes(b"\x00" + content[1:])
    (tmp_path / "tracking.json").write_text("{}")
    assert first_event(tmp_path) is None
    again = started(tmp_path)
    again.metrics({"train_loss": 0.5}, 3)
    again.metrics({"train_loss": 0.25}, 4)
    again.close()
    assert first_event(tmp_path) is not None
    assert logged(tmp_path, "train_loss") == [(3, 0.5), (4, 0.25)]
    assert not (tmp_path / "tracking.json").exists(), "how far the former run was sent"
