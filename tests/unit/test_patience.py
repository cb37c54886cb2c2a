"""Patience with a clock of its own: what it waits for, for how long, and what it says."""

from collections.abc import Callable

import pytest
import redis
from redis._parsers.base import BaseParser
from redis.exceptions import RedisError, ResponseError

from piecework.errors import ServerLost, ServerUnusable
from piecework.patience import Patience, is_away

DOWN = redis.ConnectionError("Connection refused")


class Time:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


class Server:
    """Fails as often as it is told to, then answers."""

    def __init__(self, *errors: RedisError) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "pong"


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def patience(time: Time, said: list[str]) -> Patience:
    client = redis.Redis(host="db.example", port=6380, password="hunter2")
    return Patience(10.0, client, said.append, time.wait, time.clock)


def test_nothing_is_said_when_nothing_is_wrong(patience: Patience, said: list[str], time: Time) -> None:
    assert patience(Server()) == "pong"
    assert said == []
    assert time.waits == []


def test_waits_longer_each_time_and_says_it_once(patience: Patience, said: list[str], time: Time) -> None:
    server = Server(*[DOWN] * 8)
    assert patience(server) == "pong"
    assert server.calls == 9
    assert time.waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    assert said == [
        "redis://db.example:6380/0 does not take a call (Connection refused); trying for 10 s",
        "redis://db.example:6380/0 is back after 4.5 s",
    ]


def test_gives_up_when_the_patience_is_over_and_not_later(patience: Patience, said: list[str], time: Time) -> None:
    with pytest.raises(ServerLost, match=r"db\.example.* away for 10 s: Connection refused") as caught:
        patience(Server(*[DOWN] * 100))
    assert time.now == pytest.approx(110.0)
    assert caught.value.__cause__ is DOWN
    assert "hunter2" not in str(caught.value) + "".join(said)


def test_each_call_has_the_whole_patience(patience: Patience, time: Time) -> None:
    for _ in range(5):
        patience(Server(*[DOWN] * 10))
    assert time.now > 120.0


def test_no_patience_tries_once(patience: Patience) -> None:
    patience.seconds = 0
    server = Server(DOWN)
    with pytest.raises(ServerLost):
        patience(server)
    assert server.calls == 1


def test_less_patience_holds_for_a_call_that_waits_already(patience: Patience, time: Time) -> None:
    def call() -> None:
        if time.now > 101.0:
            patience.seconds = 2.0
        raise DOWN

    with pytest.raises(ServerLost, match="for 2 s"):
        patience(call)
    assert time.now <= 102.5


def test_an_error_that_waiting_does_not_mend_passes_through(patience: Patience, time: Time) -> None:
    bug = ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    with pytest.raises(ResponseError) as caught:
        patience(Server(DOWN, bug))
    assert caught.value is bug
    assert len(time.waits) == 1


def test_other_exceptions_pass_through(patience: Patience) -> None:
    def call() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        patience(call)


@pytest.mark.parametrize(
    "reply",
    [
        "NOAUTH Authentication required.",
        "WRONGPASS invalid",
        "NOPERM no permission",
        "ERR ACL failure in script: User worker has no permissions to run the 'xadd' command script: 1, on @user:9.",
        "ERR The user executing the script can't run this command or subcommand script: 1, on @user_script:9.",
    ],
)
def test_a_refusal_is_told_at_once(patience: Patience, time: Time, reply: str) -> None:
    with pytest.raises(ServerUnusable, match="refuses"):
        patience(Server(replied(reply)))
    assert time.waits == []


def replied(reply: str) -> ResponseError:
    """What the client raises for an error reply of the server."""
    parse: Callable[[str], ResponseError] = BaseParser.parse_error
    return parse(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "OOM command not allowed when used memory > 'maxmemory'. script: 1f, on @user_script:12.",
        "ERR Error running script (call to f_1f): @user_script:9: @user_script: 9: -OOM command not",
        "ERR Error running script (call to f_1f): @user_script:9: @user_script: 9: -MISCONF Redis is",
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        "LOADING Redis is loading the dataset in memory",
        "READONLY You can't write against a read only replica.",
        "READONLY You can't write against a read only replica. script: 1f, on @user_script:12.",
        "NOREPLICAS Not enough good replicas to write.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        "ERR max number of clients reached",
        "NOSCRIPT No matching script.",
    ],
)
def test_away(reply: str) -> None:
    assert is_away(replied(reply))


@pytest.mark.parametrize("error", [redis.ConnectionError("reset"), redis.TimeoutError("Timeout reading from socket")])
def test_no_answer_is_away(error: RedisError) -> None:
    assert is_away(error)


@pytest.mark.parametrize(
    "reply",
    [
        "ERR unknown command 'FOO'",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "NOAUTH Authentication required.",
        "NOPERM this user has no permissions",
        "ERR Error running script (call to f_1f): @user_script:9: attempt to index a nil value",
        "ERR commit of 5 items accounts for another number",
    ],
)
def test_not_away(reply: str) -> None:
    assert not is_away(replied(reply))
