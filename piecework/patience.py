"""Waiting for a server that is away: what counts as away, how long to wait, and what to say then."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import redis
from redis.exceptions import RedisError, ResponseError

from piecework.errors import ServerLost, ServerUnusable
from piecework.server import where

T = TypeVar("T")

_AWAY = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.BusyLoadingError,
    redis.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ClusterDownError,  # MASTERDOWN too
    redis.exceptions.TryAgainError,
    redis.exceptions.NoScriptError,  # it was restarted between SCRIPT LOAD and EVALSHA
)
# Redis before 7.0 tells of an error in a script as "Error running script (call to f_…): …: -OOM …".
_AWAY_REPLY = re.compile(r"(Error running script .*-)?(OOM|MISCONF|NOREPLICAS|MASTERDOWN|READONLY|BUSY|UNBLOCKED) ")
_REFUSED = (
    redis.AuthenticationError,
    redis.exceptions.AuthorizationError,
    redis.exceptions.NoPermissionError,
)
_REFUSED_REPLY = re.compile(r"ACL failure in script|The user executing the script can't")


def is_refusal(error: RedisError) -> bool:
    """Whether the server does not let this user in, or not do this: waiting does not help."""
    return isinstance(error, _REFUSED) or _REFUSED_REPLY.search(str(error)) is not None


def is_away(error: RedisError) -> bool:
    """Whether waiting may help: no connection, loading, failing over, full memory or disk. Not: no
    permission.
    """
    if is_refusal(error):
        return False
    if isinstance(error, _AWAY):
        return True
    return isinstance(error, ResponseError) and _AWAY_REPLY.match(str(error)) is not None


@dataclass
class Patience:
    """Repeats calls to a server until they succeed or it has been away for `seconds` on end.

    The calls must be safe to repeat after a lost reply.
    """

    seconds: float
    server: redis.Redis
    say: Callable[[str], None]
    wait: Callable[[float], object] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __call__(self, call: Callable[[], T]) -> T:
        """Raises `ServerLost` when the patience is over, `ServerUnusable` when waiting cannot help."""
        since: float | None = None
        pause = 0.05
        while True:
            try:
                reply = call()
            except RedisError as error:
                if not is_away(error):
                    if is_refusal(error):
                        raise ServerUnusable(f"{where(self.server)} refuses: {error}") from error
                    raise
                now = self.clock()
                if since is None:
                    since = now
                    self.say(f"{where(self.server)} does not take a call ({error}); trying for {self.seconds:g} s")
                if now - since >= self.seconds:
                    raise ServerLost(f"{where(self.server)} was away for {self.seconds:g} s: {error}") from error
                self.wait(min(pause, since + self.seconds - now))
                pause = min(2 * pause, 1.0)
            else:
                if since is not None:
                    self.say(f"{where(self.server)} is back after {self.clock() - since:.1f} s")
                return reply
