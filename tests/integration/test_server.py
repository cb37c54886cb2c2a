"""`check` and `connect` against real servers, each with one thing wrong."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from piecework.errors import ServerUnusable, UsageError
from piecework.server import ServerFacts, check, connect, masked, where
from tests.server_fixture import ServerProcess, eventually

INFO: dict[str, object] = {
    "redis_version": "7.0.15",
    "redis_mode": "standalone",
    "loading": 0,
    "role": "master",
    "maxmemory": 0,
    "maxmemory_policy": "noeviction",
    "used_memory": 1_000_000,
    "aof_enabled": 1,
}


class Told(redis.Redis):
    """A client whose server says in INFO what the test wants."""

    def __init__(self, info: dict[str, object] | Exception) -> None:
        super().__init__(host="db.example", port=6380, password="hunter2")
        self._told = info

    def info(self, section: str | None = None, *args: object, **kwargs: object) -> dict[str, object]:
        if isinstance(self._told, Exception):
            raise self._told
        return self._told


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--appendonly", "yes") as process:
        yield process


def refused(client: redis.Redis) -> str:
    with pytest.raises(ServerUnusable) as caught:
        check(client)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_facts_of_a_usable_server(server: ServerProcess) -> None:
    facts = check(connect(server.url))
    assert facts.version >= (6, 2)
    assert facts.product in ("redis", "valkey")
    assert facts.maxmemory == 0
    assert facts.used_memory > 0
    assert facts.appendonly is True


def test_appendonly_off_is_a_fact_and_no_error() -> None:
    with ServerProcess() as process:
        assert check(connect(process.url)).appendonly is False


def test_answers_are_bytes(server: ServerProcess) -> None:
    client = connect(server.url)
    client.set("answers", "ä")
    assert client.get("answers") == "ä".encode()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_evicting_server_is_refused(policy: str) -> None:
    with ServerProcess("--maxmemory-policy", policy) as process:
        message = refused(connect(process.url))
        assert policy in message
        assert process.url in message
        assert "noeviction" in message


def fill(client: redis.Redis) -> None:
    for number in range(10_000):
        client.set(f"filler:{number}", bytes(1_000))


def test_full_server_is_refused() -> None:
    with ServerProcess("--maxmemory", "3mb") as process:
        client = connect(process.url)
        assert check(client).maxmemory == 3 << 20
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            fill(client)
        assert "full" in refused(client)
        client.flushall()
        eventually(lambda: client.info("memory")["used_memory"] < 3 << 20, message="memory is freed")
        assert check(client).used_memory < 3 << 20


def test_password() -> None:
    with ServerProcess("--requirepass", "hunter2") as process:
        for url in (process.url, f"{process.url}?password=wr0ng"):
            message = refused(connect(url))
            assert "password" in message
            assert "wr0ng" not in message
        assert check(connect(f"{process.url}?password=hunter2")).version


def test_user_that_may_not_ask_info(server: ServerProcess) -> None:
    server.client().acl_setuser(
        "shy", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@all"], commands=["-info"]
    )
    assert "+info" in refused(connect(f"unix://shy:pw@{server.socket}"))


def test_replica_is_refused_and_its_primary_named() -> None:
    with ServerProcess("--replicaof", "127.0.0.1", "1") as process:
        message = refused(connect(process.url))
        assert "replica of 127.0.0.1:1" in message
        assert "primary" in message


def test_killed_server_and_restarted_one() -> None:
    with ServerProcess("--appendonly", "yes") as process:
        client = connect(process.url)
        client.set("kept", "1")
        process.kill()
        assert "cannot be reached" in refused(client)
        process.restart()
        assert client.get("kept") == b"1"


def test_silent_server_is_refused_within_the_timeout() -> None:
    with ServerProcess() as process:
        process.pause()
        assert "in time" in refused(connect(process.url, socket_timeout=0.1))
        process.resume()
        eventually(lambda: check(connect(process.url)))


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    message = refused(connect(f"redis://user:hunter2@127.0.0.1:{port}/3"))
    assert f"redis://127.0.0.1:{port}/3 cannot be reached" in message
    assert "hunter2" not in message


def test_tls_to_a_server_without_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with ServerProcess("--port", str(port)):
        message = refused(connect(f"rediss://127.0.0.1:{port}", socket_timeout=0.1))
        assert "without TLS" in message
        assert f"rediss://127.0.0.1:{port}/0" in message
        assert check(connect(f"redis://127.0.0.1:{port}")).version


def test_unknown_host() -> None:
    assert "cannot be reached" in refused(connect("redis://no-such-host.invalid"))


@pytest.mark.parametrize("version", ["6.0.16", "5.0.7", "2.8"])
def test_old_server_is_refused(version: str) -> None:
    message = refused(Told({**INFO, "redis_version": version}))
    assert version in message
    assert "6.2" in message
    assert "redis://db.example:6380/0" in message


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({"loading": 1}, "loading"),
        ({"redis_mode": "cluster"}, "cluster mode"),
        ({"redis_mode": "sentinel"}, "sentinel mode"),
        ({"maxmemory": 1_000_000}, "full"),
        ({"role": "slave", "master_host": "a", "master_port": 1}, "replica of a:1"),
    ],
)
def test_told_by_info(info: dict[str, object], says: str) -> None:
    assert says in refused(Told({**INFO, **info}))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (redis.BusyLoadingError("loading"), "loading"),
        (redis.ConnectionError("Connection closed by server."), "rediss://"),
        (redis.ConnectionError("max number of clients reached"), "max number of clients"),
        (redis.AuthenticationError("Authentication required."), "PASSWORD"),
        (redis.ResponseError("unknown command `HELLO`, with args beginning with"), "6.2"),
        (redis.InvalidResponse("Protocol Error: b'HTTP/1.1 400'"), "Is it one?"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
    ],
)
def test_told_by_an_error(error: Exception, says: str) -> None:
    assert says in refused(Told(error))


def test_valkey_and_a_service_that_tells_little() -> None:
    valkey = {**INFO, "redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.1.8"}
    assert check(Told(valkey)) == ServerFacts("valkey", (8, 1, 8), 0, 1_000_000, True)
    assert check(Told({"redis_version": "7.4.0"})) == ServerFacts("redis", (7, 4, 0), 0, 0, None)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://:hunter2@localhost",
        "redis://:hunter2@localhost:port",
        "redis://:hun/ter2@localhost",
        "redis://:hunter2@localhost:99999",
        "redis://:hunter2@localhost/queue",
        "redis://:hunter2@localhost?no_such_option=1",
        "redis://:hunter2@localhost?socket_timeout=soon",
        "redis://:hunter2@localhost?decode_responses=True",
        "redis://localhost/0?password=hunter2&ssl_certfile=x",
        "redis://[::1",
        "redis://:hunter2",
        "unix://",
        "unix://relative/path",
    ],
)
def test_bad_url_is_a_usage_error_without_the_password(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        connect(url)
    assert "redis://[[USER]:PASSWORD@]HOST" in str(caught.value)
    assert not re.search("hun|ter2", str(caught.value))
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://[::1]:6379", "redis://[::1]:6379"),
        ("redis://:pw@h", "redis://:***@h"),
        ("rediss://user:pw@h:1/2?ssl_ca_certs=/ca", "rediss://user:***@h:1/2?ssl_ca_certs=/ca"),
        ("redis://user:p@:/#?w@h", "redis://user:***@h"),
        ("redis://pw@h", "redis://***@h"),
        ("redis://h?db=1&password=p@w#x", "redis://h?db=1&password=***"),
        ("rediss://h?ssl_password=pw&db=1", "rediss://h?ssl_password=***&db=1"),
        ("unix:///a@b:c/s?password=pw", "unix:///a@b:c/s?password=***"),
        ("unix://user:pw@/s", "unix://user:***@/s"),
        ("user:pw@h:6379", "user:***@h:6379"),
    ],
)
def test_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_where(tmp_path: Path) -> None:
    assert where(connect("rediss://user:pw@h/2")) == "rediss://h:6379/2"
    assert where(connect(f"unix://{tmp_path}/a%20b")) == f"unix://{tmp_path}/a b"
