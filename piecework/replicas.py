"""Waiting until replicas have what was written (`--wait-replicas N`).

Redis copies to its replicas after it has answered: a promotion may lose what was acknowledged just before. Who goes on
only when `wait` has returned builds on nothing that fewer than N replicas know. A crash leaves nothing behind.
"""

from redis import Redis
from redis.exceptions import ResponseError

from piecework.keys import replicas_channel

_WAIT_MS = 1000
"""Well below a client's time-out for an answer; who calls has the patience."""


class Replicas:
    """The replicas of the server of one run. `wanted` 0: none is waited for."""

    def __init__(self, client: Redis, run: str, wanted: int) -> None:
        self._client, self._channel, self._wanted = client, replicas_channel(run), wanted

    def wait(self) -> None:
        """Return when `wanted` replicas have all that the server has acknowledged, to whomever, before this call.

        Raises `ResponseError` with NOREPLICAS, the server's own word for it, if they do not within a second:
        `Patience` takes that as a server that is away. Safe to repeat.

        WAIT is for the last write of its own connection, and returns at once on one that has written nothing (a new
        one, another one of the pool). So a word that nobody hears goes before it: replicas get it too, in order.
        """
        if not self._wanted:
            return
        with self._client.pipeline(transaction=False) as pipe:
            pipe.publish(self._channel, "")
            pipe.execute_command("WAIT", self._wanted, _WAIT_MS)  # type: ignore[no-untyped-call]
            _, have = pipe.execute()
        if have < self._wanted:
            raise ResponseError(f"NOREPLICAS {have} of {self._wanted} replicas have what was written")
