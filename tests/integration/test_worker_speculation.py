"""`--speculate`: real processes at one item, and what becomes of each of them.

The leases are long, so that who stops soon has been told, and has not found out at the next renewal.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.ledger_fixture import chunks
from tests.server_fixture import ServerProcess, eventually
from tests.worker_fixture import Pile, WorkerProcess, alive, descendants

TOTAL = 4
LONG = ("--lease", "60", "--grace", "60")


class Stragglers(Pile):
    """A run of one chunk, whose last item is executed again and again: each time takes as long as the test holds it."""

    @property
    def environ(self) -> dict[str, str]:
        return {"TEST_FILE": str(self.directory / "begun"), "TEST_HOLD": str(self.directory / "hold")}

    def hold(self, *executions: int) -> None:
        for number in executions:
            (self.directory / f"hold.{number}").touch()

    def let_go(self, execution: int) -> None:
        (self.directory / f"hold.{execution}").unlink()

    def start(self, *options: str, **environ: str) -> WorkerProcess:
        return self.worker(*(options or (*LONG, "--speculate")), environ=self.environ | environ)

    def execution(self, number: int) -> int:
        """Pid of the process of the N-th execution, as soon as it has begun."""
        file = self.directory / f"begun.{number}"
        return int(eventually(lambda: file.exists() and file.read_text().strip(), message=f"execution {number}"))

    def item_is_overdue(self) -> bool:
        """The last item is in hand for so long that it would be copied."""
        (chunk,) = chunks(self.ledger)
        seconds, microseconds = self.client.time()
        return seconds * 1000 + microseconds / 1000 > chunk.begun_ms + 800

    def copy_expiry(self) -> int:
        """Until when the copy is its worker's, in ms."""
        expiry, _, _ = cast(bytes, self.client.hget(self.ledger.keys.copies, "1")).partition(b" ")
        return int(expiry)

    def copy_has_run_out(self) -> bool:
        return self.copy_expiry() < self.client.time()[0] * 1000

    def owner_and_copier(self, *options: str, **environ: str) -> tuple[WorkerProcess, WorkerProcess]:
        """Two workers at the last item: the first holds its chunk, the second a copy."""
        owner = self.start(*options, **environ)
        self.wait_recorded(TOTAL - 1)
        copier = self.start(*options, **environ)
        self.execution(2)
        (copy,) = self.events("copy")
        (claim,) = self.events("claim")
        assert copy["worker"] != claim["worker"]
        return owner, copier


@pytest.fixture
def pile(shared_server: ServerProcess, tmp_path: Path) -> Iterator[Stragglers]:
    with Stragglers(shared_server, tmp_path) as pile:
        yield pile.submit("told_and_held", TOTAL, TOTAL)


def won(pile: Pile, execution: int) -> None:
    """That execution's result is recorded, and each item once."""
    assert pile.outcomes() == {0: [0, 0], 1: [1, 0], 2: [2, 0], 3: [3, execution]}


def kill(worker: WorkerProcess) -> None:
    """The whole worker, at once."""
    for pid in [worker.pid, *descendants(worker.pid)]:
        os.kill(pid, signal.SIGKILL)


def test_a_straggler_is_done_by_a_copy_and_its_process_ends(pile: Stragglers) -> None:
    pile.hold(1)
    owner, copier = pile.owner_and_copier()
    eventually(lambda: not alive(pile.execution(1)), 10, "the end of who lost")
    assert [owner.exit_code(), copier.exit_code()] == [0, 0]
    won(pile, 2)
    assert pile.status.duplicates == 1


def test_the_owner_is_the_first_and_the_copy_s_process_ends(pile: Stragglers) -> None:
    pile.hold(1, 2)
    owner, copier = pile.owner_and_copier()
    pile.let_go(1)
    eventually(lambda: not alive(pile.execution(2)), 10, "the end of who lost")
    assert [owner.exit_code(), copier.exit_code()] == [0, 0]
    won(pile, 1)
    assert pile.status.duplicates == 1


def test_a_copier_is_killed_and_another_takes_its_place(pile: Stragglers) -> None:
    pile.hold(1, 2)
    owner, copier = pile.owner_and_copier("--lease", "1", "--speculate")
    first = pile.copy_expiry()
    eventually(lambda: pile.copy_expiry() > first, message="a renewal")
    kill(copier)
    eventually(pile.copy_has_run_out)
    third = pile.start("--lease", "1", "--speculate")
    assert [owner.exit_code(), third.exit_code()] == [0, 0]
    won(pile, 3)
    assert len(pile.events("copy")) == 2
    assert pile.status.duplicates == 1


def test_a_copier_is_killed_and_the_owner_goes_on(pile: Stragglers) -> None:
    pile.hold(1, 2)
    owner, copier = pile.owner_and_copier()
    kill(copier)
    pile.let_go(1)
    assert owner.exit_code() == 0
    won(pile, 1)


def test_the_owner_is_killed_and_the_copy_is_all_there_is(pile: Stragglers) -> None:
    pile.hold(1, 2)
    owner, copier = pile.owner_and_copier()
    kill(owner)
    pile.let_go(2)
    assert copier.exit_code() == 0
    won(pile, 2)


def test_the_process_of_a_copy_dies_and_nothing_is_charged(pile: Stragglers) -> None:
    """By whatever: it is not known to be the item, which goes on elsewhere."""
    pile.hold(1, 2)
    owner, copier = pile.owner_and_copier()
    os.kill(pile.execution(2), signal.SIGKILL)
    eventually(lambda: "the process that did item 3 a second time was killed" in copier.log)
    pile.let_go(1)
    assert [owner.exit_code(), copier.exit_code()] == [0, 0]
    won(pile, 1)
    assert pile.events("crash") == pile.events("release") == []


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_a_copier_that_is_told_to_stop_leaves_at_once(pile: Stragglers, isolation: str) -> None:
    """The owner has the item: the grace is for what would be lost."""
    pile.hold(1, 2)
    owner, copier = pile.owner_and_copier(*LONG, "--speculate", "--isolation", isolation)
    copier.send(signal.SIGTERM)
    assert copier.exit_code() == 75
    assert not alive(pile.execution(2))
    pile.let_go(1)
    assert owner.exit_code() == 0
    won(pile, 1)


def test_without_isolation_who_lost_runs_to_its_end_and_is_refused(pile: Stragglers) -> None:
    pile.hold(1)
    owner, copier = pile.owner_and_copier(*LONG, "--speculate", "--isolation", "none")
    assert copier.exit_code() == 0
    assert alive(pile.execution(1))
    pile.let_go(1)
    assert owner.exit_code() == 0
    won(pile, 2)
    assert pile.status.duplicates == 1


def test_a_copy_that_fails_first_is_the_item_s_failure(pile: Stragglers) -> None:
    pile.hold(1)
    owner, copier = pile.owner_and_copier(TEST_FAILS="2")
    assert [owner.exit_code(), copier.exit_code()] == [0, 0]
    assert [failure.message for failure in pile.failures().values()] == ["execution 2"]
    assert pile.status.duplicates == 1


def test_nobody_copies_without_the_option(pile: Stragglers) -> None:
    """One with the option finds the item as soon as it has begun; until then another was idle."""
    pile.hold(1)
    owner = pile.start(*LONG)
    pile.wait_recorded(TOTAL - 1)
    idle = pile.start(*LONG)
    eventually(lambda: len(pile.events("join")) == 2)
    eventually(pile.item_is_overdue)
    speculating = pile.start(*LONG, "--speculate", "--name", "speculating")
    assert [owner.exit_code(), idle.exit_code(), speculating.exit_code()] == [0, 0, 0]
    (copy,) = pile.events("copy")
    assert copy["worker"] == "speculating"
