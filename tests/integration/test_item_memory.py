"""`--item-memory`: an item that needs more has failed, and the others have not. Real workers."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from piecework_worker import item_memory
from tests.server_fixture import ServerProcess
from tests.worker_fixture import Pile

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a limit of Linux")


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as process:
        yield process


@pytest.mark.parametrize(
    ("handler", "options", "spec"),
    [
        ("greedy_for_ever", (), {}),
        ("greedy", (), {"retries": 1}),
        ("greedy_async", ("--concurrency", "1"), {}),
        ("greedy_many", (), {"batch": True}),
    ],
)
def test_greedy_items_fail_and_the_others_do_not(
    server: ServerProcess, tmp_path: Path, handler: str, options: tuple[str, ...], spec: dict[str, Any]
) -> None:
    with Pile(server, tmp_path) as pile:
        pile.submit(handler, 12, 12, **spec)
        pile.drained("--item-memory", "100M", *options)
        assert pile.events("crash") == []
        assert pile.results() == {item: 20 << 20 for item in range(12) if item not in (3, 5)}
        failures = pile.failures()
        assert list(failures) == [3, 5]
        for failure in failures.values():
            assert (failure.type, failure.attempt) == ("MemoryError", 1 + spec.get("retries", 0))
            assert failure.message == "the item needed more than --item-memory 100M"
            assert "in greedy" in failure.traceback


def test_code_that_aborts_is_blamed_with_the_limit(server: ServerProcess, tmp_path: Path) -> None:
    with Pile(server, tmp_path) as pile:
        pile.submit("aborts_without_memory", 6, 6, crash_limit=1)
        pile.drained(PIECEWORK_ITEM_MEMORY="100M")
        (failure,) = pile.failures().values()
        assert (failure.type, failure.message) == (
            "Crash",
            "the item's process was killed by SIGABRT (under --item-memory 100M, which it may have met)",
        )
        assert len(pile.results()) == 5


def test_a_result_that_cannot_be_packed_within_the_limit(server: ServerProcess, tmp_path: Path) -> None:
    """It fits, but its copy does not."""
    with Pile(server, tmp_path) as pile:
        pile.submit("result_too_large_to_pack", 6, 6, crash_limit=1)
        pile.drained("--item-memory", "70M")
        (index,) = pile.failures()
        assert index == 3
        assert "(under --item-memory 70M" in pile.failures()[3].message
        assert len(pile.results()) == 5


def test_commands_have_the_limit_too(server: ServerProcess, tmp_path: Path) -> None:
    with Pile(server, tmp_path) as pile:
        code = "import sys; print(len(bytearray((1 << 30) * (sys.argv[1] == '1'))))"
        pile.submit(f'exec:{sys.executable} -c "{code}" {{}}', 3, 3)
        pile.drained("--item-memory", "100M")
        assert pile.results() == {0: "0", 2: "0"}
        assert pile.failures()[1].type == "CommandFailed"
        assert "MemoryError" in pile.failures()[1].message
        assert "(under --item-memory 100M" in pile.failures()[1].message


def test_without_a_limit_an_exception_is_what_it_was() -> None:
    with item_memory.met(MemoryError("mine")) as limit:
        assert limit == ""
    assert item_memory.hint(None) == ""
