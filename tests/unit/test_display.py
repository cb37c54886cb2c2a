"""How a run's progress is worded, and how fast it is said to be."""

from typing import Any

import pytest

from piecework.records import Status
from piecework.states import State
from piecework_producer.cli.display import Lines, Pace, duration, line
from piecework_producer.cli.draining import command_to_go_on
from piecework_producer.launcher import Launch, LaunchState


def status(done: int = 0, total: int = 100, **fields: Any) -> Status:
    base: dict[str, Any] = {
        "run": "r", "state": State.RUNNING, "paused": False, "sealed": True, "total": total, "done": done,
        "failed": 0, "duplicates": 0, "in_flight": 0, "workers": 0, "items_per_second": 0.0,
        "elapsed_seconds": 0.0, "eta_seconds": None,
    }  # fmt: skip
    return Status(**base | fields)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (5.21, "5.21s"), (59.94, "59.9s"), (59.97, "1m0s"), (200, "3m20s"), (3599.6, "1h0m"),
        (7500, "2h5m"), (86400 * 4 + 3600 * 3, "4d3h"),
    ],
)  # fmt: skip
def test_durations_read_as_those_of_kubectl(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_pace_is_that_of_the_last_half_minute() -> None:
    now = 1000.0
    pace = Pace(lambda: now)

    assert pace(status(10, total=1000)) == [], "what happened before is not known"
    now += 2
    assert pace(status(30, total=1000)) == ["10/s", "1m37s left"]
    now += 60
    assert pace(status(30, total=1000)) == [], "the first of a new half minute"
    now += 10
    assert pace(status(30, total=1000)) == ["0/s"], "no estimate when nothing moves"
    now += 10
    assert pace(status(1000, total=1000)) == ["48.5/s", "0s left"]
    now += 10
    assert pace(status(990, total=1000)) == [], "items were opened again"


def test_no_estimate_while_the_run_is_paused_or_filled() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    pace(status(0))
    now = 10.0
    assert pace(status(50, paused=True)) == ["5/s"]
    assert pace(status(50, sealed=False)) == []


def test_a_status_in_a_line() -> None:
    assert line(status(5, failed=2, paused=True)) == "run r running: 7/100 items, 2 failed, paused"


def test_what_became_of_a_worker_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Lines()
    for reason in ("", "worker 0 ended", "worker 0 ended", "worker 1 ended"):
        shown.status(status(), Launch(LaunchState.ACTIVE, running=1, reason=reason))
    shown.status(status(), Launch(LaunchState.ACTIVE, exit_code=78, reason="bad handler"))

    assert capsys.readouterr().err == "piecework: worker 0 ended\npiecework: worker 1 ended\n"


def test_plain_lines_come_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    shown = Lines(lambda: now)
    for now in range(12):
        shown.filled(now * 10)
    for now in range(12, 20):
        shown.status(status(now), Launch(LaunchState.ACTIVE, running=2))

    assert capsys.readouterr().err.splitlines() == [
        "piecework: 50 items filled",
        "piecework: 100 items filled",
        "piecework: run r running: 15/100 items, 1/s, 1m25s left, 2 workers",
    ]


def test_the_command_that_goes_on_can_be_typed_and_holds_no_password() -> None:
    typed = ["run", "m:f", "--exec", "echo '{}' x", "--redis", "redis://:secret@host", "--lines", "-"]

    again = command_to_go_on(typed, "r1")

    assert again == (
        """piecework run m:f --exec 'echo '"'"'{}'"'"' x' --redis 'redis://:***@host' --lines - --run r1"""
        " < the same input"
    )
    assert command_to_go_on(["retry", "r1"], "r1") == "piecework retry r1"
    assert command_to_go_on(["run", "--run=r1"], "r1") == "piecework run --run=r1"
    assert "secret" not in command_to_go_on(["run", "--redis=redis://u:secret@h/1"], "r1")
