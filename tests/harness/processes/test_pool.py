from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.machine.environment import ROOT
from harness.processes.jobs import Job, JobEnded, JobEvent, JobProgressed, JobResult, JobStarted
from harness.processes.pool import run_jobs

HERE = ROOT / "tests/support/processes"
Run = Callable[..., tuple[list[JobResult], list[JobEvent]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.syspath_prepend(str(HERE))

    def run(
        function: str,
        payloads: list[dict[str, Any]],
        workers: int = 1,
        threads: int = 1,
        gpus: tuple[str, ...] | None = None,
    ) -> tuple[list[JobResult], list[JobEvent]]:
        others = psutil.Process().children()
        jobs = [Job(f"j{i}", p, tmp_path / f"logs/j{i}.log") for i, p in enumerate(payloads)]
        events: list[JobEvent] = []
        results = run_jobs(
            jobs,
            f"pool_targets:{function}",
            workers=workers,
            threads_per_worker=threads,
            on_event=events.append,
            gpus=gpus,
        )
        assert psutil.Process().children() == others
        return results, events

    return run


def test_results_come_in_the_order_of_the_jobs(run: Run) -> None:
    payloads = [{"number": i, "deep": {"list": [1, None, "é"]}} for i in range(7)]
    results, events = run("echo", payloads, workers=2)
    assert [result.value for result in results] == payloads
    assert all(result.ok for result in results)
    started = [event.key for event in events if isinstance(event, JobStarted)]
    assert started == [f"j{i}" for i in range(7)]
    assert {event.result.key for event in events if isinstance(event, JobEnded)} == set(started)


def test_a_large_result_arrives_whole(run: Run) -> None:
    payload = {"text": "x" * 3_000_000}
    results, _ = run("echo", [payload])
    assert results[0].value == payload


def test_one_worker_runs_many_jobs(run: Run) -> None:
    results, _ = run("tell_pid", [{}] * 5)
    assert len({result.value for result in results}) == 1
    assert results[0].value != os.getpid()


def test_never_more_jobs_at_once_than_workers(run: Run) -> None:
    results, _ = run("overlap", [{}] * 6, workers=2)
    spans = [result.value for result in results]
    at_once = [sum(b <= began < e for b, e in spans) for began, _ in spans]
    assert max(at_once) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker_fails_only_its_job(run: Run, number: int) -> None:
    killed = {"how": "signal", "number": int(number)}
    results, _ = run("misbehave", [{"how": "well"}, killed, {"how": "well"}, {"how": "well"}])
    assert [result.ok for result in results] == [True, False, True, True]
    assert f"worker killed by signal {int(number)}" in (results[1].reason or "")
    assert "last words" in results[1].log_path.read_text()


def test_a_worker_that_is_asked_to_end_leaves_after_its_job_and_another_takes_the_next(
    run: Run,
) -> None:
    asked = {"how": "signal", "number": int(signal.SIGTERM)}
    results, _ = run("misbehave", [{"how": "well"}, asked, {"how": "well"}])
    assert [result.value for result in results] == ["well"] * 3


def test_a_worker_that_exits_fails_only_its_job(run: Run) -> None:
    results, _ = run("misbehave", [{"how": "exit"}, {"how": "well"}])
    assert results[0].reason == "worker exited with code 3 in the middle of the job"
    assert results[1].value == "well"


def test_a_job_that_calls_exit_fails_with_a_traceback(run: Run) -> None:
    results, _ = run("misbehave", [{"how": "sys_exit"}, {"how": "well"}])
    assert results[0].reason == "SystemExit: 1"
    assert "Traceback" in results[0].log_path.read_text()
    assert results[1].ok


def test_exit_handlers_of_the_job_run_before_the_worker_ends(run: Run) -> None:
    results, _ = run("say_goodbye", [{}])
    assert results[0].log_path.read_text() == "goodbye\n"


def test_a_user_error_is_passed_on_word_by_word_and_keeps_the_worker(run: Run) -> None:
    results, _ = run("misbehave", [{"how": "user_error"}, {"how": "well"}])
    assert results[0].reason == "data.path: no such folder, expected the images"
    assert results[0].caused_by_user
    assert "Traceback" not in results[0].log_path.read_text()
    assert results[1].ok


def test_an_exception_leaves_a_short_reason_and_a_traceback_in_the_log(run: Run) -> None:
    results, _ = run("misbehave", [{"how": "exception"}, {"how": "well"}])
    assert results[0].reason == "ValueError: the numbers do not add up"
    assert not results[0].caused_by_user
    assert "Traceback" in results[0].log_path.read_text()
    assert "pool_targets.py" in results[0].log_path.read_text()
    assert results[1].ok


def test_a_result_that_is_not_json_fails_the_job(run: Run) -> None:
    results, _ = run("misbehave", [{"how": "not_json"}, {"how": "well"}])
    assert "not JSON serializable" in (results[0].reason or "")
    assert results[1].ok


def test_an_unknown_target_fails_each_job(run: Run) -> None:
    results, _ = run("no_such_function", [{}, {}])
    assert all("no_such_function" in (result.reason or "") for result in results)


def test_a_log_that_cannot_be_written_fails_only_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    (tmp_path / "file").touch()
    jobs = [Job("a", {}, tmp_path / "file" / "a.log"), Job("b", {}, tmp_path / "b.log")]
    results = run_jobs(
        jobs, "pool_targets:tell_pid", workers=1, threads_per_worker=1, on_event=lambda event: None
    )
    assert "cannot start" in (results[0].reason or "")
    assert results[1].ok


def test_all_output_goes_to_the_log_of_the_job(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    results, _ = run("talk", [{}, {}])
    for result in results:
        lines = result.log_path.read_text().splitlines()
        assert sorted(lines) == [
            "from a child process",
            "from python",
            "from stderr",
            "from the descriptor",
        ]
    assert capfd.readouterr() == ("", "")


def test_progress_is_thinned_but_stages_begin_and_end_visibly(run: Run) -> None:
    _, events = run("count", [{"total": 200, "pause": 0.003}])
    reports = [event.progress for event in events if isinstance(event, JobProgressed)]
    train = [report for report in reports if report.stage == "train"]
    assert (train[0].done, train[-1].done) == (0, 200)
    assert train[-1].note == "loss 200"
    assert 4 <= len(train) <= 20
    assert reports[-1].stage == "sample"


def test_a_thread_that_outlives_its_job_does_not_report_for_the_next(run: Run) -> None:
    payloads = [{"stage": "first", "seconds": 0.05}, {"stage": "second", "seconds": 0.3}]
    _, events = run("report_after_the_end", payloads)
    stages = {(e.key, e.progress.stage) for e in events if isinstance(e, JobProgressed)}
    assert stages == {("j0", "first"), ("j1", "second")}


def test_threads_are_limited_in_the_environment_of_the_worker_alone(run: Run) -> None:
    before = dict(os.environ)
    results, _ = run("tell_surroundings", [{}], threads=3)
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    assert [results[0].value["environment"][name] for name in variables] == ["3", "3", "3"]
    assert dict(os.environ) == before


def test_each_worker_has_a_gpu_of_its_own(run: Run) -> None:
    results, _ = run("tell_surroundings", [{}, {}], workers=2, gpus=("GPU-a", "GPU-b"))
    seen = [result.value["environment"]["CUDA_VISIBLE_DEVICES"] for result in results]
    assert sorted(seen) == ["GPU-a", "GPU-b"]
    results, _ = run("tell_surroundings", [{}], gpus=())
    assert results[0].value["environment"]["CUDA_VISIBLE_DEVICES"] == ""


def test_two_jobs_of_one_key_are_refused(tmp_path: Path) -> None:
    jobs = [Job("same", {}, tmp_path / "log")] * 2
    with pytest.raises(ValueError, match="same key"):
        run_jobs(jobs, "a:b", workers=1, threads_per_worker=1, on_event=lambda event: None)


def test_an_error_of_the_listener_leaves_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(HERE))

    def fail(event: JobEvent) -> None:
        if isinstance(event, JobProgressed):
            raise RuntimeError("the display broke")

    others = psutil.Process().children(recursive=True)
    jobs = [Job("a", {"folder": str(tmp_path)}, tmp_path / "a.log")]
    with pytest.raises(RuntimeError, match="display broke"):
        run_jobs(
            jobs,
            "pool_targets:sleep_until_stopped",
            workers=1,
            threads_per_worker=1,
            on_event=fail,
        )
    assert psutil.Process().children(recursive=True) == others


def test_many_jobs_share_as_few_processes_as_there_are_workers(run: Run) -> None:
    """A job costs a message each way, and no start of a process."""
    results, _ = run("tell_pid", [{}] * 200, workers=2)
    assert all(result.ok for result in results)
    assert len({result.value for result in results}) <= 2


def test_importing_the_pool_imports_no_heavy_library() -> None:
    program = (
        "import sys, harness.processes.pool, harness.terminal.jobs, harness.processes.lock\n"
        "heavy = {'torch', 'mlflow', 'pytorch_lightning', 'numpy', 'pandas', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_torch_uses_the_given_number_of_threads(tmp_path: Path) -> None:
    (tmp_path / "torch_target.py").write_text(
        "import torch\ndef threads(payload, report, stop):\n    return torch.get_num_threads()\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        jobs = [Job("a", {}, tmp_path / "a.log")]
        (result,) = run_jobs(
            jobs,
            "torch_target:threads",
            workers=1,
            threads_per_worker=3,
            on_event=lambda event: None,
        )
    assert result.value == 3
