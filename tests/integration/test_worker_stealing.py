"""Idle workers take from busy ones: real processes, and what they compute when something is taken or somebody dies."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.server_fixture import ServerProcess, eventually
from tests.worker_fixture import Pile, WorkerProcess, descendants, squares


@pytest.fixture
def pile(shared_server: ServerProcess, tmp_path: Path) -> Iterator[Pile]:
    with Pile(shared_server, tmp_path) as pile:
        yield pile


def shares(pile: Pile) -> dict[str, int]:
    """Worker -> number of claims."""
    return Counter(event["worker"] for event in pile.events("claim"))


@contextmanager
def asleep(worker: WorkerProcess) -> Iterator[None]:
    """All of its processes are stopped: it does not get on while others start, however long that takes."""
    os.kill(worker.pid, signal.SIGSTOP)  # from here on it forks nobody
    pids = [worker.pid, *descendants(worker.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)


def test_workers_that_come_later_get_work_at_once(pile: Pile, tmp_path: Path) -> None:
    """All is one chunk, and in the hands of the first."""
    notes = tmp_path / "notes"
    pile.submit("noted", 120, 120)
    first = pile.worker("--lease", "60", environ={"TEST_FILE": str(notes)})
    pile.wait_recorded(5)
    with asleep(first):
        later = [pile.worker(environ={"TEST_FILE": str(notes)}) for _ in range(3)]
        eventually(lambda: pile.status.workers == 4)
    eventually(lambda: len(shares(pile)) == 4)
    assert [worker.exit_code() for worker in [first, *later]] == [0] * 4
    assert pile.outcomes() == squares(120)
    computed = Counter(map(int, notes.read_text().split()))
    assert set(computed) == set(range(120))
    assert sum(computed.values()) - 120 <= 2 * len(pile.events("steal")), "the robbed hear of it between two items"


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_a_long_item_does_not_hold_up_those_behind_it(pile: Pile, tmp_path: Path, isolation: str) -> None:
    """They are taken while it is in hand, and the one who is at it does not begin them."""
    notes, hold = tmp_path / "notes", tmp_path / "hold"
    hold.touch()
    pile.submit("held_at_3", 40, 40)
    environ = {"TEST_FILE": str(notes), "TEST_HOLD": str(hold)}
    workers = [pile.worker("--isolation", isolation, environ=environ) for _ in range(2)]
    pile.wait_recorded(39)
    hold.unlink()
    assert [worker.exit_code() for worker in workers] == [0, 0]
    assert pile.outcomes() == squares(40)
    assert Counter(map(int, notes.read_text().split())) == Counter(range(40))
    assert pile.status.duplicates == 0


def test_a_thief_that_dies_at_once(pile: Pile) -> None:
    pile.submit("slow", 90, 90)
    victim = pile.worker()
    pile.wait_recorded(5)
    with asleep(victim):
        thief = pile.worker()
        eventually(lambda: len(shares(pile)) == 2)
        for pid in [thief.pid, *descendants(thief.pid)]:
            os.kill(pid, signal.SIGKILL)
    third = pile.worker()
    assert [victim.exit_code(), third.exit_code()] == [0, 0]
    assert pile.outcomes() == squares(90)


def test_a_victim_that_sleeps_through_it(pile: Pile) -> None:
    """Both of its processes are stopped while it is robbed; awake again it finds its commits too long or too late."""
    pile.submit("slow", 60, 60)
    victim = pile.worker("--lease", "60")
    pile.wait_recorded(5)
    with asleep(victim):
        thief = pile.worker("--lease", "60")
        eventually(lambda: pile.events("steal"))
    assert [victim.exit_code(), thief.exit_code()] == [0, 0]
    assert pile.outcomes() == squares(60)


@pytest.mark.parametrize(
    ("handler", "options"),
    [
        ("slow_batch", ["--batch-size", "4"]),
        ("napping_long", ["--concurrency", "4"]),
        ("exec:sh -c 'sleep 0.05' x", []),
    ],
)
def test_every_kind_of_handler_can_be_robbed(pile: Pile, handler: str, options: list[str]) -> None:
    """Of items from blocks of a payload; what a batch has in hand stays where it is."""
    items = [{"n": i} for i in range(100)]
    pile.submit(handler, 100, 100, items=items, block=7, batch=handler == "slow_batch")
    workers = [pile.worker(*options)]
    pile.wait_recorded(8)
    with asleep(workers[0]):
        workers += [pile.worker(*options) for _ in range(2)]
        eventually(lambda: pile.events("steal"))
    assert [worker.exit_code() for worker in workers] == [0] * 3
    outcomes = pile.outcomes()
    assert sorted(outcomes) == list(range(100))
    if not handler.startswith("exec"):
        assert outcomes == {i: i * i for i in range(100)}


def test_what_is_stolen_is_retried_like_the_rest(pile: Pile) -> None:
    pile.submit("fails_slowly", 60, 60, retries=1)
    workers = [pile.worker()]
    eventually(lambda: shares(pile))
    with asleep(workers[0]):
        workers += [pile.worker()]
        eventually(lambda: pile.events("steal"))
    assert [worker.exit_code(30) for worker in workers] == [0, 0]
    assert sorted(pile.failures()) == list(range(60))
    assert {failure.attempt for failure in pile.failures().values()} == {2}
