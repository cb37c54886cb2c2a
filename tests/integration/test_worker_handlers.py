"""Handlers of every kind, in real workers: what they return, raise and do to their process, item by item."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from piecework.records import Failure
from piecework.states import State
from tests.handlers_for_tests import ALL_TYPES
from tests.server_fixture import ServerProcess, eventually
from tests.worker_fixture import Pile, alive, squares


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as process:
        yield process


@pytest.fixture
def pile(server: ServerProcess, tmp_path: Path) -> Iterator[Pile]:
    with Pile(server, tmp_path) as pile:
        yield pile


# --- plain functions


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_plain(pile: Pile, isolation: str) -> None:
    pile.submit("square", 5000, 700)
    status = pile.drained("--isolation", isolation, workers=2)
    assert status.state is State.SUCCEEDED
    assert status.duplicates == 0
    assert pile.outcomes() == squares(5000)


def test_a_range_of_its_own_and_a_blocked_pile(pile: Pile, server: ServerProcess, tmp_path: Path) -> None:
    pile.submit("square", 10, 4, start=100, step=-3)
    pile.drained()
    assert pile.outcomes() == {i: (100 - 3 * i) ** 2 for i in range(10)}
    (tmp_path / "other").mkdir()
    with Pile(server, tmp_path / "other") as other:
        other.submit("square", 250, 80, items=[i + 1 for i in range(250)], block=30)
        other.drained()
        assert other.outcomes() == {i: (i + 1) ** 2 for i in range(250)}


def test_results_of_every_type(pile: Pile) -> None:
    pile.submit("all_types", len(ALL_TYPES), 5)
    pile.drained()
    assert list(pile.results().values()) == list(ALL_TYPES.values())


def test_what_cannot_be_stored_fails_its_item_and_names_its_type(pile: Pile) -> None:
    pile.submit("unstorable", 10, 10)
    assert pile.drained().state is State.COMPLETED_WITH_FAILURES
    failures = pile.failures()
    assert list(failures) == list(range(9))
    assert {failure.type for failure in failures.values()} == {"Unstorable"}
    named = ["object", "set", "int", "Posix", "surrogate", "complex", "function", "object", "itself"]
    for failure, name in zip(failures.values(), named, strict=True):
        assert name in failure.message
    assert pile.results() == {9: "fine"}


def test_four_failures_and_nothing_else_is_lost(pile: Pile) -> None:
    pile.submit("four_failures", 20, 10, crash_limit=2)
    status = pile.drained("--item-timeout", "0.5", workers=2)
    assert status.state is State.COMPLETED_WITH_FAILURES
    failures = pile.failures()
    assert {i: failure.type for i, failure in failures.items()} == {
        3: "ValueError",
        5: "Crash",
        7: "TimeoutError",
        9: "Unstorable",
    }
    assert failures[3].message == "three is odd"
    assert "handlers_for_tests.py" in failures[3].traceback
    assert "SIGABRT" in failures[5].message
    assert "--item-timeout 0.5 s" in failures[7].message
    assert "object" in failures[9].message
    assert pile.results() == {i: i for i in range(20) if i not in failures}


@pytest.mark.parametrize(
    ("does", "failure"),
    [
        ("sys.exit", ("SystemExit", "leaving")),
        ("os._exit 0", ("Crash", "exited with code 0")),
        ("os._exit 3", ("Crash", "exited with code 3")),
        ("signal 9", ("Crash", "SIGKILL")),
        ("signal 15", None),
        ("bad str", ("BadStrError", "RuntimeError")),
        ("group exception", ("ExceptionGroup", "2 sub-exceptions")),
        ("close stdout", None),
        ("print", None),
        ("pool", None),
        ("terminate", None),
        ("fork and return", None),
        ("fork and exit", None),
    ],
)
def test_what_an_item_may_do_to_its_process(pile: Pile, does: str, failure: tuple[str, str] | None) -> None:
    pile.submit("in_item_5", 100, 50, crash_limit=1)
    pile.drained(TEST_DO=does)
    failures = pile.failures()
    if failure is None:
        assert pile.outcomes() == squares(100)
    else:
        kind, message = failure
        assert list(failures) == [5]
        assert failures[5].type == kind
        assert message in failures[5].message
        assert pile.results() == {i: i * i for i in range(100) if i != 5}
    if does == "print":
        assert pile.workers[0].log.count("said by a handler") == 1
    if does.startswith("fork"):
        assert pile.status.duplicates == 0


@pytest.mark.parametrize("does", ["pool", "terminate"])
def test_processes_of_a_handler_without_isolation_end_when_told_to(pile: Pile, does: str) -> None:
    pile.submit("in_item_5", 20, 10)
    pile.drained("--isolation", "none", TEST_DO=does)
    assert pile.outcomes() == squares(20)


def test_handler_that_leaves_without_isolation_fails_its_item_only(pile: Pile) -> None:
    pile.submit("in_item_5", 20, 10)
    pile.drained("--isolation", "none", TEST_DO="sys.exit")
    assert {i: failure.message for i, failure in pile.failures().items()} == {5: "leaving"}
    assert len(pile.results()) == 19


def test_what_a_crashed_horse_had_started_ends_with_it(pile: Pile, tmp_path: Path) -> None:
    pile.submit("spawns", 2, 2, crash_limit=1)
    pid_file = tmp_path / "pid"
    pile.drained(TEST_FILE=str(pid_file))
    assert list(pile.failures()) == [1]
    eventually(lambda: not alive(int(pid_file.read_text())))


def test_huge_results(pile: Pile) -> None:
    pile.submit("huge", 5, 5)
    pile.drained()
    assert [len(result) for result in pile.results().values()] == [10 << 20] * 5


def test_what_current_tells(pile: Pile) -> None:
    pile.submit("told", 6, 3)
    pile.drained()
    assert pile.results() == {i: [pile.run, i, 1, f"{pile.run}/{i}", 1] for i in range(6)}


def test_scratch_is_removed_after_a_failure_too(pile: Pile) -> None:
    pile.submit("scratch_then_fail", 2, 2)
    pile.drained()
    for failure in pile.failures().values():
        assert pile.run in failure.message
        assert not Path(failure.message).exists()


# --- async


def test_async_results_are_in_order(pile: Pile) -> None:
    pile.submit("napping", 300, 150)
    assert pile.drained("--concurrency", "50").elapsed_seconds < 3
    assert pile.outcomes() == {i: [i, i] for i in range(300)}


@pytest.mark.parametrize("concurrency", ["1", "10"])
def test_async_failures_and_one_that_hangs(pile: Pile, concurrency: str) -> None:
    pile.submit("napping_badly", 20, 20)
    pile.drained("--concurrency", concurrency, "--item-timeout", "0.5")
    failures = pile.failures()
    assert {i: failure.type for i, failure in failures.items()} == {
        3: "ValueError",
        5: "SystemExit",
        7: "CancelledError",
        9: "TimeoutError",
    }
    assert len(pile.results()) == 16
    assert pile.events("crash") == []
    assert pile.events("timeout") == [], "the event loop ended it"


@pytest.mark.parametrize("handler", ["blocking", "stubborn"])
def test_async_item_that_the_event_loop_cannot_end(pile: Pile, handler: str) -> None:
    pile.submit(handler, 20, 20)
    pile.drained("--concurrency", "10", "--item-timeout", "0.3")
    assert {i: failure.type for i, failure in pile.failures().items()} == {9: "TimeoutError"}
    assert len(pile.results()) == 19


# --- batches


def test_batches(pile: Pile) -> None:
    pile.submit("many", 5000, 2500, batch=True)
    pile.drained("--batch-size", "77")
    assert pile.outcomes() == squares(5000)


@pytest.mark.parametrize(
    ("handler", "failed", "message"),
    [
        ("many_but_3", [3], "three is in it"),
        ("too_few", list(range(100)), "returned 0 results for 1 items"),
        ("no_list", list(range(100)), "must return a list, not dict"),
        ("eats_its_list", [], ""),
    ],
)
def test_batch_handlers_that_misbehave(pile: Pile, handler: str, failed: list[int], message: str) -> None:
    pile.submit(handler, 100, 100, batch=True)
    pile.drained()
    failures = pile.failures()
    assert list(failures) == failed
    assert all(message in failure.message for failure in failures.values())
    assert pile.results() == {i: i * i for i in range(100) if i not in failed}


def test_one_item_of_a_batch_that_hangs(pile: Pile) -> None:
    pile.submit("one_hangs", 12, 12, batch=True)
    pile.drained("--item-timeout", "0.15", "--batch-size", "8")
    assert {i: failure.type for i, failure in pile.failures().items()} == {5: "TimeoutError"}
    assert len(pile.results()) == 11


# --- commands


def test_command(pile: Pile) -> None:
    pile.submit("exec:sh -c 'test $1 != 3 || { echo no three >&2; exit 4; }; echo got $1' sh", 5, 5)
    pile.drained()
    assert pile.results() == {i: f"got {i}" for i in range(5) if i != 3}
    assert pile.failures() == {3: Failure("CommandFailed", "exit code 4: no three", pile.failures()[3].traceback)}


def test_command_gets_the_item_as_it_is_and_no_secret(pile: Pile, tmp_path: Path) -> None:
    items: list[Any] = ["$(touch owned) `x` \\ \" ' {} *", {"a": [1, "ä"]}]
    pile.submit("shell:printf '%s|' \"{}\" '{}' {}; env; cat", 2, 2, items=items, stdin=True)
    started = pile.worker(cwd=tmp_path, environ={"SECRET_OF_MINE": "shown", "PIECEWORK_REDIS_PASSWORD": "hidden"})
    assert started.exit_code() == 0
    assert not (tmp_path / "owned").exists()
    for index, item in enumerate(items):
        text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False, separators=(",", ":"))
        result = pile.results()[index]
        assert result.startswith(f"{text}|{text}|{text}|")
        assert json.loads(result.rpartition("\n")[2]) == item
        assert "SECRET_OF_MINE=shown" in result
        assert "hidden" not in result
        assert pile.server.url not in result
        for setting in ("RUN", "INDEX", "ATTEMPT", "IDEMPOTENCY_KEY"):
            assert f"PIECEWORK_{setting}=" in result
        assert f"PIECEWORK_IDEMPOTENCY_KEY={pile.run}/{index}\n" in result


def test_command_that_hangs_ends_with_its_item(pile: Pile) -> None:
    pile.submit("exec:sh -c 'test $1 != 1 || sleep 610 & wait; echo $1' sh", 3, 3)
    pile.drained("--item-timeout", "0.5")
    assert {i: failure.type for i, failure in pile.failures().items()} == {1: "TimeoutError"}
    assert pile.results() == {0: "0", 2: "2"}
    assert not [each for each in Path("/proc").glob("[0-9]*/cmdline") if each.read_bytes() == b"sleep\x00610\x00"]
