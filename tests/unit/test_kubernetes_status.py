"""Rows as kubectl prints them, and where cluster and ledger disagree."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from piecework.records import Status
from piecework.states import State
from piecework_producer.kubernetes_objects import Job
from piecework_producer.kubernetes_status import (
    StartTimeout,
    as_json,
    disagreement,
    human_duration,
    job_row,
    status_word,
)
from piecework_producer.launcher import Launch, LaunchState
from tests.unit.test_kubernetes_reasons import job_of, recorded

NOW = 1_800_000_000.0


def ledger(state: State, done: int = 3, failed: int = 1, ended_at: float | None = None) -> Status:
    return Status(
        run="r",
        state=state,
        paused=False,
        sealed=True,
        total=10,
        done=done,
        failed=failed,
        duplicates=0,
        in_flight=0,
        workers=0,
        items_per_second=0,
        elapsed_seconds=0,
        eta_seconds=None,
        ended_at=ended_at,
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (45, "45s"), (119, "119s"), (126, "2m6s"), (540, "9m"), (1620, "27m"), (7200, "120m"),
     (11100, "3h5m"), (100_000, "27h"), (190_800, "2d5h"), (12 * 86400, "12d"), (800 * 86400, "2y70d"),
     (4000 * 86400, "10y")],
)  # fmt: skip
def test_durations_are_kubectls(seconds: int, text: str) -> None:
    assert human_duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("job-complete", "Complete"),
        ("job-failed-78", "Failed"),
        ("job-delete-foreground", "Terminating"),
        ("job-scale-parallelism", "Running"),
        ("fixed-count-job-complete", "Complete"),
    ],
)
def test_status_words_are_kubectls(name: str, word: str) -> None:
    assert status_word(job_of(recorded(name))) == word


def test_a_row_counts_items_for_a_run_and_pods_for_a_fixed_count_job() -> None:
    now = datetime(2026, 11, 21, 18, 0, 0, tzinfo=UTC)
    fixed = job_row(job_of(recorded("fixed-count-job-complete")), (), (), lambda _: None, now)
    assert (fixed.name, fixed.status, fixed.completions) == ("calculatepi", "Complete", "6/6")
    assert (fixed.duration, fixed.age, fixed.reason) == ("3s", "97s", "")
    row = job_row(job_of(recorded("job-complete")), (), (), lambda _: ledger(State.SUCCEEDED, 10, 0), now)
    assert (row.completions, row.duration, row.reason) == ("10/10", "7s", "")
    early = job_row(job_of(recorded("job-complete")), (), (), lambda _: ledger(State.RUNNING), now)
    assert early.completions == "4/10"
    assert "6 of 10 items left" in early.reason
    failed = job_row(job_of(recorded("job-failed-78")), (), (), lambda _: None, now)
    assert (failed.completions, failed.duration, failed.failed) == ("-", "2s", 2)
    assert json.loads(json.dumps(as_json([row])))[0]["name"] == "drain"


@pytest.mark.parametrize(
    ("launch", "status", "message"),
    [
        (LaunchState.SUCCEEDED, ledger(State.RUNNING), "is Complete, but the ledger has 6 of 10 items left"),
        (
            LaunchState.FAILED,
            ledger(State.RUNNING),
            "has failed with 6 of 10 items left: why. Mend that, then submit",
        ),
        (LaunchState.GONE, ledger(State.RUNNING), "has no Job, and the ledger has 6 of 10 items left"),
        (LaunchState.ACTIVE, ledger(State.SUCCEEDED, 10, 0, NOW - 100), "over (succeeded) since 100 s"),
        (
            LaunchState.FAILED,
            ledger(State.SUCCEEDED, 10, 0, NOW),
            "record is complete, but its Job has failed",
        ),
        (LaunchState.ACTIVE, None, "knows no such run"),
        (LaunchState.SUSPENDED, None, "knows no such run"),
    ],
)
def test_disagreements(launch: LaunchState, status: Status | None, message: str) -> None:
    assert message in disagreement("r", Launch(launch, reason="why"), status, NOW)


@pytest.mark.parametrize(
    ("launch", "status"),
    [
        (LaunchState.ACTIVE, ledger(State.RUNNING)),
        (LaunchState.SUSPENDED, ledger(State.RUNNING)),
        (LaunchState.ACTIVE, ledger(State.SUCCEEDED, 10, 0, NOW - 5)),
        (LaunchState.SUCCEEDED, ledger(State.COMPLETED_WITH_FAILURES, 9, 1, NOW)),
        (LaunchState.FAILED, ledger(State.FAILED, ended_at=NOW)),
        (LaunchState.FAILED, ledger(State.CANCELLED, ended_at=NOW)),
        (LaunchState.GONE, ledger(State.SUCCEEDED, 10, 0, NOW - 1000)),
        (LaunchState.GONE, None),
    ],
)
def test_agreements(launch: LaunchState, status: Status | None) -> None:
    assert disagreement("r", Launch(launch), status, NOW) == ""


def test_workers_that_never_start() -> None:
    now = 0.0
    timeout = StartTimeout(60, lambda: now)
    stuck = Launch(LaunchState.ACTIVE, pending=2, reason="cannot pull image x")
    assert timeout.check(stuck) == ""
    now = 59
    assert timeout.check(stuck) == ""
    now = 60
    assert timeout.check(stuck) == "no worker could start for 60 s: cannot pull image x"
    assert timeout.check(Launch(LaunchState.ACTIVE, pending=1, running=1, reason="x")) == ""
    now = 100
    assert timeout.check(stuck) == "", "it counts anew after a worker has run"
    assert StartTimeout(0, lambda: now).check(stuck) == ""


def test_suspended_is_shown() -> None:
    body: dict[str, Any] = {"status": {"conditions": [{"type": "Suspended", "status": "True"}]}}
    assert status_word(msgspec.convert(body, Job)) == "Suspended"
