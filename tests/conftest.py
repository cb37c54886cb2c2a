"""One real server for each pytest process, and a check after each test that no run leaves a key behind."""

import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings
from redis import Redis

from piecework.ledger import Ledger, runs
from tests.ledger_fixture import keys_without_lifetime
from tests.server_fixture import ServerProcess

# What fails once fails again. To look for more: pytest --hypothesis-profile=explore.
settings.register_profile("same-every-time", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("same-every-time")


@pytest.fixture(scope="session")
def shared_server() -> Iterator[ServerProcess]:
    """A server that keeps nothing on disk. Its database is the running test's alone; do not stop it."""
    with ServerProcess("--appendonly", "no") as process:
        yield process


@pytest.fixture
def client(shared_server: ServerProcess) -> Iterator[Redis]:
    """A client of the shared server, whose database is empty."""
    with shared_server.client() as client:
        yield client


@pytest.fixture
def run_id() -> str:
    """An id that no other test has."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
def no_key_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test on the shared server: keys of runs that are over will expire, and deletion leaves none.

    All of its runs are deleted here; what it has put on the server beside them is its own to remove.
    """
    if "shared_server" not in request.fixturenames:
        yield
        return
    server: ServerProcess = request.getfixturevalue("shared_server")
    yield
    with server.client() as client:
        try:
            immortal: list[str] = []
            for run in runs(client):
                ledger = Ledger(client, run)
                if ledger.status().state.over:
                    immortal += keys_without_lifetime(client, run)
                ledger.delete()
            left = sorted(key.decode() for key in client.scan_iter(count=1000))
        finally:
            client.flushdb()
    assert not immortal, "keys of runs that are over would stay for ever"
    assert not left, "keys that deletion leaves"
