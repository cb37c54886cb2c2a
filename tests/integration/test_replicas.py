"""`--wait-replicas` with a server and a replica of it: nothing counts that the replica has not got."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from piecework.ledger import Ledger
from piecework.replicas import Replicas
from piecework.states import State
from tests.server_fixture import ServerProcess, eventually, free_port
from tests.worker_fixture import Pile, squares

WAITING = ("--wait-replicas", "1")


class Pair(NamedTuple):
    primary: ServerProcess
    replica: ServerProcess

    def is_in_sync(self) -> bool:
        return bool(self.primary.client().info("replication").get("slave0", {}).get("state") == "online")


@pytest.fixture(scope="module")
def both() -> Iterator[Pair]:
    port = str(free_port())
    with (
        ServerProcess("--port", port, "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0") as primary,
        ServerProcess("--replicaof", f"127.0.0.1 {port}") as replica,
    ):
        yield Pair(primary, replica)


@pytest.fixture
def pair(both: Pair) -> Iterator[Pair]:
    eventually(both.is_in_sync)
    yield both
    both.replica.resume()


def test_who_waits_knows_what_the_replica_knows(pair: Pair) -> None:
    client = pair.primary.client()
    Replicas(client, "r", 0).wait()
    for number in range(50):
        client.set("piecework:1:r:run", number)
        Replicas(pair.primary.client(), "r", 1).wait()  # by a connection that has not written it
        assert pair.replica.client().get("piecework:1:r:run") == str(number).encode()
    client.delete("piecework:1:r:run")
    with pytest.raises(redis.ResponseError, match="NOREPLICAS 1 of 2"):
        Replicas(client, "r", 2).wait()


def test_at_exit_0_the_replica_knows_the_end(pair: Pair, tmp_path: Path) -> None:
    with Pile(pair.primary, tmp_path) as pile:
        pile.submit("square", 2000, 100)
        workers = [pile.worker(*WAITING), pile.worker(*WAITING, "--isolation", "none")]
        for worker in workers:
            assert worker.exit_code() == 0
            status = Ledger(pair.replica.client(), pile.run).status()
            assert (status.state, status.done) == (State.SUCCEEDED, 2000)


def test_nothing_counts_that_the_replica_has_not_got(pair: Pair, tmp_path: Path) -> None:
    with Pile(pair.primary, tmp_path) as pile:
        pile.submit("slow", 60, 30)
        idle, busy = pile.worker(*WAITING, "--patience", "1"), pile.worker(*WAITING, "--patience", "1")
        pile.wait_recorded(1)
        pair.replica.pause()
        recorded = pile.recorded
        for worker in (idle, busy):
            assert worker.exit_code() == 75
            assert "NOREPLICAS 0 of 1 replicas have what was written" in worker.log
        assert pile.status.state is State.RUNNING
        assert pile.worker(*WAITING, "--patience", "0").exit_code() == 75
        assert pile.recorded < recorded + 40, "no worker goes on for longer than a commit"
        assert pile.status.leased == 0

        pair.replica.resume()
        pile.drained(*WAITING, workers=2)
        assert pile.results() == squares(60)


def test_an_end_that_the_replica_has_not_got_is_no_exit_0(pair: Pair, tmp_path: Path) -> None:
    with Pile(pair.primary, tmp_path) as pile:
        pile.submit("square", 1, 1)
        assert pile.ledger.claim(1, "other", 60) is not None
        worker = pile.worker(*WAITING, "--patience", "1", "--parent", str(os.getpid()))
        eventually(lambda: pile.status.workers == 2)
        pair.replica.pause()
        pile.ledger.commit(1, 0, 1, results=([(0, 1)], b""), begun=1)
        assert worker.exit_code() == 75
        assert pile.status.state is State.SUCCEEDED
