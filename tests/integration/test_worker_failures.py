"""Failures, retries and crashes: what is charged to which item, and that nothing else is lost by it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from piecework.states import State
from tests.server_fixture import ServerProcess
from tests.worker_fixture import Pile


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as process:
        yield process


@pytest.fixture
def pile(server: ServerProcess, tmp_path: Path) -> Iterator[Pile]:
    with Pile(server, tmp_path) as pile:
        yield pile


def test_retries_come_back_alone_later_and_later(pile: Pile) -> None:
    pile.submit("fails_twice", 6, 6, retries=2)
    status = pile.drained("--isolation", "none", workers=2)
    assert status.state is State.SUCCEEDED
    assert pile.outcomes() == {i: [i, 3] for i in range(6)}
    assert status.elapsed_seconds >= 3, "1 s before the second attempt, 2 s before the third"
    claims = [event["detail"] for event in pile.events("claim")]
    assert claims[0] == "0-6"
    assert sorted(claims[1:]) == sorted(2 * [f"{i}-{i + 1}" for i in range(6)])


def test_retries_run_out(pile: Pile) -> None:
    pile.submit("fails_twice", 2, 2, retries=1)
    assert pile.drained("--isolation", "none").state is State.COMPLETED_WITH_FAILURES
    assert {failure.attempt for failure in pile.failures().values()} == {2}
    assert {failure.message for failure in pile.failures().values()} == {"attempt 2"}
    assert pile.ledger.retry() == 2
    assert pile.status.state is State.RUNNING


def test_retried_time_out(pile: Pile) -> None:
    pile.submit("endless_from_5", 6, 6, retries=1)
    pile.drained("--item-timeout", "0.2")
    assert {i: (failure.type, failure.attempt) for i, failure in pile.failures().items()} == {5: ("TimeoutError", 2)}
    assert len(pile.results()) == 5


def test_many_retries_in_one_chunk(pile: Pile) -> None:
    pile.submit("fails_twice", 3000, 3000, retries=1)
    worker = pile.worker()
    pile.wait_recorded(10)
    pile.ledger.abort(State.CANCELLED, "enough")
    assert worker.exit_code() == 65


def test_failure_budget_ends_the_run(pile: Pile) -> None:
    pile.submit("four_failures", 2000, 4, budget=(0, False))
    workers = [pile.worker() for _ in range(2)]
    for each in workers:
        assert each.exit_code() == 65
        assert "1 items failed, more than --max-failures allows (0)" in each.last_line
    assert pile.status.state is State.FAILED


@pytest.mark.parametrize("limit", [1, 3])
def test_poison_in_the_middle_of_a_big_fast_chunk(pile: Pile, limit: int) -> None:
    pile.submit("poison_500", 50_000, 50_000, crash_limit=limit)
    status = pile.drained()
    assert status.state is State.COMPLETED_WITH_FAILURES
    failures = pile.failures()
    assert list(failures) == [500]
    assert "SIGSEGV" in failures[500].message
    assert len(pile.results()) == 49_999
    assert len(pile.events("crash")) == limit


def test_result_that_kills_when_it_is_packed(pile: Pile) -> None:
    pile.submit("poison_result", 100, 100, crash_limit=2)
    pile.drained()
    assert list(pile.failures()) == [50]
    assert pile.failures()[50].type == "Crash"
    assert len(pile.results()) == 99


def test_every_item_kills_its_process(pile: Pile) -> None:
    pile.submit("exec:sh -c 'kill -9 $PPID'", 4, 4, crash_limit=1)
    pile.drained()
    assert {failure.type for failure in pile.failures().values()} == {"Crash"}
    assert len(pile.failures()) == 4
