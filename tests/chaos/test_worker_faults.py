"""Workers, horses and servers that die, stop and come back: each item is recorded once."""

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.server_fixture import ServerProcess, eventually
from tests.worker_fixture import Pile, alive, descendants, squares


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--appendonly", "yes") as process:
        yield process


@pytest.fixture
def pile(server: ServerProcess, tmp_path: Path) -> Iterator[Pile]:
    with Pile(server, tmp_path) as pile:
        yield pile


# --- workers


@pytest.mark.parametrize("handler", ["slow", "exec:sh -c 'sleep 0.05; echo $1' sh"])
def test_killed_worker_leaves_no_orphan_and_another_goes_on(pile: Pile, handler: str) -> None:
    pile.submit(handler, 60, 60)
    killed = pile.worker("--lease", "1")
    pile.wait_recorded(3)
    started = eventually(lambda: descendants(killed.pid))
    killed.send(signal.SIGKILL)
    assert killed.exit_code() == -signal.SIGKILL
    begun = time.monotonic()
    eventually(lambda: not any(map(alive, started)), 2.0)
    assert pile.drained("--lease", "1").duplicates == 0
    assert set(pile.results()) == set(range(60))
    assert len(pile.events("expired")) == 1
    assert pile.events("crash") == []
    assert time.monotonic() - begun < 12


def test_killed_worker_takes_with_it_what_a_handler_has_started(pile: Pile) -> None:
    pile.submit("starts_a_process", 10, 10)
    killed = pile.worker()
    started = eventually(lambda: found if len(found := descendants(killed.pid)) == 3 else [])
    killed.send(signal.SIGKILL)
    eventually(lambda: not any(map(alive, started)), 2.0)


def test_orphan_of_a_command_ends_while_the_server_is_away_too(pile: Pile, server: ServerProcess) -> None:
    pile.submit("exec:sleep 611", 3, 3)
    killed = pile.worker("--patience", "60")
    started = eventually(lambda: found if len(found := descendants(killed.pid)) > 1 else [])
    server.pause()
    killed.send(signal.SIGKILL)
    eventually(lambda: not any(map(alive, started)), 2.0)
    server.resume()


def test_killed_horse_costs_what_was_not_committed(pile: Pile, tmp_path: Path) -> None:
    pile.submit("noted", 60, 60)
    notes = tmp_path / "notes"
    worker = pile.worker(environ={"TEST_FILE": str(notes)})
    for recorded in (10, 30):
        pile.wait_recorded(recorded)
        os.kill(worker.horse(), signal.SIGKILL)
    assert worker.exit_code() == 0
    assert pile.outcomes() == squares(60)
    computed = Counter(map(int, notes.read_text().split()))
    assert set(computed) == set(range(60))
    assert sum(computed.values()) - 60 <= 2 * 13, "at most what half a second computes, and the item in hand"


@pytest.mark.parametrize("whole", [True, False], ids=["worker and horse", "worker alone"])
def test_stopped_for_longer_than_the_lease(pile: Pile, whole: bool) -> None:
    pile.submit("slow", 80, 80)
    zombie = pile.worker("--lease", "1")
    pile.wait_recorded(5)
    pids = [zombie.pid, *descendants(zombie.pid)] if whole else [zombie.pid]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    held = cast(list[bytes], pile.client.zrange(pile.ledger.keys.leases, 0, -1))
    eventually(lambda: cast(float, pile.client.zscore(pile.ledger.keys.leases, held[0])) < time.time() * 1000)
    other = pile.worker("--lease", "1")
    eventually(lambda: pile.events("expired"))
    eventually(lambda: len(pile.events("claim")) == 2)
    if not whole:  # its horse works on, and so does the other's
        eventually(lambda: pile.status.duplicates > 0)
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)
    assert [zombie.exit_code(), other.exit_code()] == [0, 0]
    assert pile.outcomes() == squares(80)


# --- the server


def test_server_comes_after_the_worker(server: ServerProcess, pile: Pile) -> None:
    pile.submit("square", 100, 10)
    server.kill()
    worker = pile.worker()
    eventually(lambda: "does not take a call" in worker.log)
    server.restart()
    assert worker.exit_code() == 0
    assert pile.outcomes() == squares(100)


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_server_is_killed_and_comes_back(server: ServerProcess, pile: Pile, isolation: str) -> None:
    pile.submit("slow", 120, 60)
    workers = [pile.worker("--isolation", isolation) for _ in range(2)]
    for recorded in (20, 60):
        pile.wait_recorded(recorded)
        server.restart()
    assert [each.exit_code() for each in workers] == [0, 0]
    assert pile.outcomes() == squares(120)
    assert pile.events("crash") == []


def test_server_is_silent_for_a_while(server: ServerProcess, pile: Pile) -> None:
    pile.submit("slow", 60, 30)
    worker = pile.worker("--patience", "60", url=f"{server.url}?socket_timeout=1")
    pile.wait_recorded(5)
    server.pause()
    eventually(lambda: "does not take a call" in worker.log)
    server.resume()
    assert worker.exit_code() == 0
    assert pile.outcomes() == squares(60)


def test_items_go_on_while_the_server_is_away(server: ServerProcess, pile: Pile, tmp_path: Path) -> None:
    pile.submit("noted", 60, 60)
    notes = tmp_path / "notes"
    worker = pile.worker("--patience", "30", environ={"TEST_FILE": str(notes)})
    pile.wait_recorded(5)
    server.kill()
    eventually(lambda: len(notes.read_text().split()) == 60)
    server.restart()
    assert worker.exit_code() == 0
    assert pile.outcomes() == squares(60)
    assert len(notes.read_text().split()) == 60, "nothing was computed twice"


def test_server_loses_everything(server: ServerProcess, pile: Pile) -> None:
    pile.submit("slow", 100, 50)
    worker = pile.worker()
    pile.wait_recorded(5)
    server.kill()
    shutil.rmtree(server.directory / "appendonlydir")
    server.restart()
    assert worker.exit_code() == 78
    assert "has lost its data" in worker.last_line


@pytest.mark.parametrize(
    ("isolation", "handler", "options"),
    [
        ("process", "slow", []),
        ("process", "endless_from_5", []),
        ("process", "slow", ["stop"]),
        ("none", "slow", []),
        ("none", "endless_from_5", ["stop"]),
    ],
)
def test_server_never_comes_back(
    server: ServerProcess, pile: Pile, isolation: str, handler: str, options: list[str]
) -> None:
    pile.submit(handler, 1000, 1000)
    patience = "60" if options else "1.5"
    worker = pile.worker("--isolation", isolation, "--patience", patience, "--lease", "1", "--grace", "0.5")
    pile.wait_recorded(5)
    server.kill()
    begun = time.monotonic()
    if options:
        worker.send(signal.SIGTERM)
    assert worker.exit_code() == 75
    assert time.monotonic() - begun < 6


def test_idle_worker_without_a_server(server: ServerProcess, pile: Pile) -> None:
    pile.submit("square", 10, 5, seal=False)
    worker = pile.worker("--patience", "60")
    eventually(lambda: pile.events("join"))
    server.kill()
    eventually(lambda: "does not take a call" in worker.log)
    worker.send(signal.SIGTERM)
    assert worker.exit_code(4.0) == 75
